use super::*;

fn line(id: &str, stage: &str, user: &str, uri: &str, rest: &str) -> String {
    format!(
        r#"{{"kind":"Event","level":"Metadata","auditID":"{id}","stage":"{stage}","requestURI":"{uri}","verb":"get","user":{{"username":"{user}"}},"userAgent":"manx/0.1"{rest}}}"#
    ) + "\n"
}

#[test]
fn a_request_counts_once_and_learns_the_status_of_its_answer() {
    let status = r#","objectRef":{"resource":"nodes","name":"n1","subresource":"status"}"#;
    let text = line("1", "RequestReceived", "n1", "/api/v1/nodes/n1/status?pretty=1", status)
        + &line("2", "RequestReceived", "n1", "/readyz?verbose", "")
        + &line(
            "1",
            "ResponseComplete",
            "n1",
            "/api/v1/nodes/n1/status",
            r#","responseStatus":{"code":409}"#,
        );
    let requests = parse(&text).unwrap();
    let seen: Vec<_> = requests.iter().map(|request| (request.resource.as_str(), request.code)).collect();
    assert_eq!(seen, [("nodes/status", Some(409)), ("/readyz", None)]);
    assert_eq!((requests.count_of("get", "nodes/status"), requests.by_user("n2").count()), (1, 0));
    assert_eq!(requests.by_agent("manx/").count(), 2);
}

#[test]
fn an_answer_whose_request_came_in_before_the_mark_is_not_a_request() {
    let text = line("1", "ResponseComplete", "n1", "/readyz", r#","responseStatus":{"code":200}"#);
    assert_eq!(parse(&text).unwrap(), Requests::default());
}

#[test]
fn what_kubernetes_asks_itself_and_a_line_that_is_still_being_written_are_left_out() {
    let text = line("1", "RequestReceived", "system:apiserver", "/api/v1/namespaces", "")
        + line("2", "RequestReceived", "n1", "/readyz", "").trim_end();
    assert_eq!(parse(&text).unwrap().count(), 0);
}

#[test]
fn a_damaged_line_is_an_error_that_shows_it() {
    let error = format!("{:#}", parse("{\"auditID\": 7}\n").unwrap_err());
    assert!(error.contains("auditID"), "{error}");
}
