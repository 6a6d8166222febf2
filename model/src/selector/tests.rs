use std::collections::BTreeMap;

use proptest::prelude::{Just, Strategy, any, prop_oneof, proptest};

use super::{Expression, Selector, Test};

fn matches(selector: &str, labels: &[(&str, &str)]) -> bool {
    let labels: BTreeMap<String, String> =
        labels.iter().map(|&(key, value)| (key.to_owned(), value.to_owned())).collect();
    selector.parse::<Selector>().unwrap_or_else(|error| panic!("{selector}: {error}")).matches(&labels)
}

#[test]
fn a_selector_selects_what_it_selects_in_calico() {
    let labels = [("zone", "a"), ("example.com/rack", "r-1"), ("empty", ""), ("in", "x")];
    for (selector, expected) in [
        ("", true),
        (" \t\n", true),
        ("all()", true),
        ("all( )", true),
        ("!all()", false),
        ("has(zone)", true),
        ("has( zone )", true),
        ("!has(zone)", false),
        ("!!has(zone)", true),
        ("has(nothing)", false),
        ("has(empty)", true),
        ("zone == 'a'", true),
        (r#"zone=="a""#, true),
        ("zone == 'b'", false),
        ("zone != 'a'", false),
        ("zone != 'b'", true),
        ("nothing != 'b'", true),
        ("nothing == ''", false),
        ("!zone == 'b'", true),
        ("zone in {'a', 'b'}", true),
        ("zone in {'b',}", false),
        ("zone in {}", false),
        ("nothing in {'a'}", false),
        ("zone not in {'a'}", false),
        ("zone notin {'b'}", true),
        ("nothing not in {'a'}", true),
        ("zone not in {}", true),
        ("example.com/rack contains '-'", true),
        ("nothing contains ''", false),
        ("example.com/rack starts with 'r'", true),
        ("example.com/rack startswith '1'", false),
        ("example.com/rack ends   with '1'", true),
        ("in in {'x'}", true),
        ("zone == 'a' && has(nothing) || has(empty)", true),
        ("zone == 'a' && (has(nothing) || has(empty))", true),
        ("has(empty) || zone == 'b' && has(nothing)", true),
        ("(has(empty) || zone == 'b') && has(nothing)", false),
        ("!(has(empty) && has(nothing))", true),
    ] {
        assert_eq!(matches(selector, &labels), expected, "{selector}");
    }
}

#[test]
fn labels_may_be_named_like_the_words_of_the_language() {
    assert!(matches(
        "all == 'x' && has == 'y' && global == 'z'",
        &[("all", "x"), ("has", "y"), ("global", "z")]
    ));
}

#[test]
fn an_error_says_what_was_expected_and_where() {
    for (selector, position, words) in [
        ("zone = 'a'", 6, "expected '==', '!=', 'in'"),
        ("zone == a", 9, "expected a value in quotes, found \"a\""),
        ("zone == 'a", 9, "no closing '"),
        ("zone in ['a']", 9, "expected '{'"),
        ("zone in {'a' 'b'}", 14, "expected ',' or '}'"),
        ("zone not 'a'", 6, "'not in'"),
        ("has(zone", 9, "expected ')', found the end"),
        ("has()", 5, "expected a label, found \")\""),
        ("(has(a)", 8, "')', found the end"),
        ("has(a) has(b)", 8, "expected '&&', '||' or the end"),
        ("has(a) &&", 10, "expected a label"),
        ("has(a) & has(b)", 8, "expected '&&'"),
        ("\u{e9}tat == 'a'", 1, "expected a label"),
        ("zone == '\u{e9}' x", 13, "or the end, found \"x\""),
    ] {
        let error = selector.parse::<Selector>().unwrap_err();
        assert_eq!(error.position, position, "{selector}: {error}");
        assert!(error.problem.contains(words), "{selector}: {error}");
    }
}

#[test]
fn a_selector_has_a_longest_length_and_a_greatest_depth() {
    let nested = |depth: usize| format!("{}has(a){}", "(".repeat(depth), ")".repeat(depth));
    assert!(nested(Selector::MAX_DEPTH).parse::<Selector>().is_ok());
    assert!(nested(Selector::MAX_DEPTH + 1).parse::<Selector>().unwrap_err().problem.contains("deeper"));
    assert!("!".repeat(Selector::MAX_LENGTH - 5).parse::<Selector>().is_err());
    assert!(" ".repeat(Selector::MAX_LENGTH + 1).parse::<Selector>().unwrap_err().problem.contains("bytes"));
}

#[test]
fn global_is_recognised_wherever_it_stands() {
    for (selector, uses) in
        [("global()", true), ("has(a) || !(has(b) && global())", true), ("has(global)", false)]
    {
        assert_eq!(selector.parse::<Selector>().unwrap().uses_global(), uses, "{selector}");
    }
}

#[test]
fn a_selector_is_displayed_with_the_parentheses_that_it_needs() {
    for (read, shown) in [
        ("", "all()"),
        ("((zone=='a'))", "zone == \"a\""),
        ("a == 'say \"x\"'", "a == 'say \"x\"'"),
        ("a in {'y','x','x'}", "a in {\"x\", \"y\"}"),
        ("has(a)||(has(b)&&has(c))", "has(a) || has(b) && has(c)"),
        ("(has(a)||has(b))&&has(c)", "(has(a) || has(b)) && has(c)"),
        ("!(!(has(a)&&has(b)))", "has(a) && has(b)"),
    ] {
        assert_eq!(read.parse::<Selector>().unwrap().to_string(), shown);
    }
}

fn value() -> impl Strategy<Value = String> {
    prop_oneof!["[^'\"]{0,4}", "[^']{0,4}", "[^\"]{0,4}"]
}

fn test() -> impl Strategy<Value = Test> {
    prop_oneof![
        Just(Test::Exists),
        value().prop_map(Test::Equals),
        value().prop_map(Test::Differs),
        proptest::collection::btree_set(value(), 0..3).prop_map(Test::In),
        proptest::collection::btree_set(value(), 0..3).prop_map(Test::NotIn),
        value().prop_map(Test::Contains),
        value().prop_map(Test::StartsWith),
        value().prop_map(Test::EndsWith),
    ]
}

fn expression() -> impl Strategy<Value = Expression> {
    let leaf = prop_oneof![
        Just(Expression::All),
        Just(Expression::Global),
        ("[a-zA-Z0-9_./-]{1,6}", test()).prop_map(|(key, test)| Expression::Label(key, test)),
    ];
    leaf.prop_recursive(4, 24, 3, |inner| {
        let several = proptest::collection::vec(inner.clone(), 2..4);
        prop_oneof![
            inner.prop_map(Expression::negated),
            several.clone().prop_map(Expression::And),
            several.prop_map(Expression::Or),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_displayed_reads_back_as_the_same(expression in expression()) {
        let shown = expression.to_string();
        assert_eq!(super::parse::selector(&shown), Ok(expression), "{shown}");
    }

    #[test]
    fn no_text_makes_the_parser_panic(text in any::<String>()) {
        let _ = text.parse::<Selector>();
    }

    #[test]
    fn no_text_of_the_languages_own_words_makes_the_parser_panic(
        words in proptest::collection::vec(
            proptest::sample::select(vec![
                "(", ")", "!", "==", "!=", "&&", "||", "{", "}", ",", "'a'", "\"", "'", "has(", "all(", "a", "in",
                "not", "starts", "with", "\u{e9}", " ",
            ]),
            0..24,
        )
    ) {
        if let Ok(selector) = words.concat().parse::<Selector>() {
            assert_eq!(selector.to_string().parse(), Ok(selector));
        }
    }
}
