//! Requests to the API server: verb, path, query and body.

use form_urlencoded::Serializer;
use http::header::{ACCEPT, CONTENT_TYPE, HeaderValue};
use http::{Method, Request};
use kube::client::Body;
use manx_model::{Kind, check_key};

const JSON: &str = "application/json";
const MERGE_PATCH: &str = "application/merge-patch+json";
const STRATEGIC_PATCH: &str = "application/strategic-merge-patch+json";
const YAML: &str = "application/yaml";
/// Metadata only; plain objects from a server that cannot do that.
const METADATA: &str = "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1,application/json";

/// One request. It can be sent more than once.
#[derive(Clone, Debug)]
pub(crate) struct Call {
    /// As the API server's audit names it, or `report`.
    pub(crate) verb: &'static str,
    method: Method,
    path: String,
    query: Vec<(&'static str, String)>,
    accept: &'static str,
    body: Option<(&'static str, Vec<u8>)>,
}

impl Call {
    pub(crate) fn get(path: String) -> Self {
        Self::new("get", Method::GET, path)
    }

    pub(crate) fn list(path: String) -> Self {
        Self::new("list", Method::GET, path)
    }

    pub(crate) fn watch(path: String) -> Self {
        Self::new("watch", Method::GET, path).with("watch", "true")
    }

    pub(crate) fn create(path: String, body: Vec<u8>) -> Self {
        Self { body: Some((JSON, body)), ..Self::new("create", Method::POST, path) }
    }

    pub(crate) fn report(path: String, body: Vec<u8>) -> Self {
        Self { verb: "report", ..Self::create(path, body) }
    }

    pub(crate) fn create_from_yaml(path: String, yaml: &str) -> Self {
        Self { body: Some((YAML, yaml.into())), ..Self::new("create", Method::POST, path) }
    }

    pub(crate) fn update(path: String, body: Vec<u8>) -> Self {
        Self { body: Some((JSON, body)), ..Self::new("update", Method::PUT, path) }
    }

    pub(crate) fn patch(path: String, body: Vec<u8>) -> Self {
        Self { body: Some((MERGE_PATCH, body)), ..Self::new("patch", Method::PATCH, path) }
    }

    /// A patch in which the members of a list are known by their keys, of Kubernetes' own kinds.
    pub(crate) fn patch_members(path: String, body: Vec<u8>) -> Self {
        Self { body: Some((STRATEGIC_PATCH, body)), ..Self::new("patch", Method::PATCH, path) }
    }

    pub(crate) fn delete(path: String, body: Vec<u8>) -> Self {
        Self { body: Some((JSON, body)), ..Self::new("delete", Method::DELETE, path) }
    }

    fn new(verb: &'static str, method: Method, path: String) -> Self {
        Self { verb, method, path, query: Vec::new(), accept: JSON, body: None }
    }

    /// The same with a parameter.
    pub(crate) fn with(mut self, name: &'static str, value: impl Into<String>) -> Self {
        self.query.push((name, value.into()));
        self
    }

    /// The same, answered with no more than the metadata of objects.
    pub(crate) fn metadata_only(self) -> Self {
        Self { accept: METADATA, ..self }
    }

    /// As HTTP. Fails only for a path that is none.
    pub(crate) fn request(&self) -> Result<Request<Body>, http::Error> {
        let mut query = Serializer::new(String::new());
        query.extend_pairs(&self.query);
        let uri = match query.finish() {
            query if query.is_empty() => self.path.clone(),
            query => format!("{}?{query}", self.path),
        };
        let request = Request::builder()
            .method(&self.method)
            .uri(uri)
            .header(ACCEPT, HeaderValue::from_static(self.accept));
        match &self.body {
            Some((content, body)) => request.header(CONTENT_TYPE, *content).body(Body::from(body.clone())),
            None => request.body(Body::empty()),
        }
    }
}

/// The path of a kind's objects, in one namespace or in all.
pub(crate) fn collection(kind: Kind, namespace: Option<&str>) -> String {
    let (group, version, plural) = (kind.group(), kind.version(), kind.plural());
    let api = match group {
        "" => format!("/api/{version}"),
        group => format!("/apis/{group}/{version}"),
    };
    match namespace {
        Some(namespace) => format!("{api}/namespaces/{namespace}/{plural}"),
        None => format!("{api}/{plural}"),
    }
}

/// The path of an object, or `None` where no object can have that key: no other path can be reached by a key.
pub(crate) fn path(kind: Kind, key: &str) -> Option<String> {
    check_key(kind, key).ok()?;
    Some(match key.split_once('/') {
        Some((namespace, name)) => format!("{}/{name}", collection(kind, Some(namespace))),
        None => format!("{}/{key}", collection(kind, None)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_asked_for_where_the_api_server_keeps_them() {
        assert_eq!(path(Kind::Node, "n1").as_deref(), Some("/api/v1/nodes/n1"));
        assert_eq!(path(Kind::Pod, "ns/p").as_deref(), Some("/api/v1/namespaces/ns/pods/p"));
        assert_eq!(path(Kind::IPPool, "a").as_deref(), Some("/apis/crd.projectcalico.org/v1/ippools/a"));
        assert_eq!(collection(Kind::Lease, None), "/apis/coordination.k8s.io/v1/leases");
    }

    #[test]
    fn a_key_that_is_none_leads_nowhere() {
        for key in ["", "a/b", "..", "../nodes/n1", "a?watch=true", "a%2fb"] {
            assert_eq!(path(Kind::IPPool, key), None, "{key}");
        }
        assert_eq!(path(Kind::Pod, "p"), None);
        assert_eq!(path(Kind::Pod, "a/b/c"), None);
    }

    #[test]
    fn parameters_are_escaped() {
        let call = Call::list("/api/v1/pods".into()).with("fieldSelector", "spec.nodeName=a&b");
        assert_eq!(call.request().unwrap().uri(), "/api/v1/pods?fieldSelector=spec.nodeName%3Da%26b");
    }
}
