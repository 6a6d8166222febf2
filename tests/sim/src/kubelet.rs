//! The pods of one node, as a kubelet has them: ADD until it succeeds, DEL until it succeeds, whatever the agent does.

use std::collections::BTreeMap;
use std::fs::File;
use std::net::{IpAddr, Ipv4Addr};
use std::os::fd::OwnedFd;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use manx::pods::Pods;
use manx_cni::protocol::{Command, Pod};
use manx_cni::{CniError, Code, Container, Reply, Request, Settings};
use tokio::sync::{Notify, oneshot, watch};
use tokio::task::JoinSet;

/// The name of the pods' network.
pub const NETWORK: &str = "k8s-pod-network";
/// The namespace of all pods.
pub const NAMESPACE: &str = "default";
/// Between two attempts.
const RETRY: Duration = Duration::from_secs(2);

/// Where the agent of a node serves pods, while there is one.
pub type Socket = watch::Receiver<Option<Arc<Pods>>>;

/// The kubelet of one node. It outlives agents. Its clones are the same kubelet.
#[derive(Clone, Default)]
pub struct Kubelet(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    socket: Option<Socket>,
    /// Calls that the present agent is serving.
    calls: JoinSet<()>,
    pods: BTreeMap<String, Lived>,
    tasks: JoinSet<()>,
}

/// One pod.
#[derive(Default)]
struct Lived {
    wanted: watch::Sender<bool>,
    renew: Arc<Notify>,
    sandbox: Option<Sandbox>,
    last_error: Option<CniError>,
}

/// A container that got its address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sandbox {
    /// Its id.
    pub container: String,
    /// Its address.
    pub address: Ipv4Addr,
}

impl Kubelet {
    /// There is an agent, and this is its socket.
    pub fn connect(&self, socket: Socket) {
        self.state().socket = Some(socket);
    }

    /// The agent is gone, and with it every call that it served.
    pub fn disconnect(&self) {
        let mut state = self.state();
        state.socket = None;
        state.calls = JoinSet::new();
    }

    /// The node is off: its pods are no more.
    pub fn power_off(&self) {
        self.disconnect();
        let mut state = self.state();
        state.tasks = JoinSet::new();
        state.pods.clear();
    }

    /// Runs a pod of this name, for as long as it is wanted.
    pub fn run(&self, pod: &str) {
        let wanted = watch::Sender::new(true);
        let (receiver, renew) = (wanted.subscribe(), Arc::<Notify>::default());
        let mut state = self.state();
        state.pods.insert(pod.to_owned(), Lived { wanted, renew: Arc::clone(&renew), ..Lived::default() });
        state.tasks.spawn(self.clone().keep(pod.to_owned(), receiver, renew));
    }

    /// Gives a pod that runs a new sandbox, as after its sandbox died.
    pub fn renew(&self, pod: &str) {
        if let Some(lived) = self.state().pods.get(pod) {
            lived.renew.notify_one();
        }
    }

    /// Ends a pod.
    pub fn end(&self, pod: &str) {
        if let Some(lived) = self.state().pods.get(pod) {
            lived.wanted.send_replace(false);
        }
    }

    /// The pods that are wanted, with their sandbox where they have one.
    pub fn pods(&self) -> BTreeMap<String, Option<Sandbox>> {
        let state = self.state();
        let wanted = state.pods.iter().filter(|(_, lived)| *lived.wanted.borrow());
        wanted.map(|(name, lived)| (name.clone(), lived.sandbox.clone())).collect()
    }

    /// Pods that are not wanted any more and whose DEL has not succeeded yet.
    pub fn leaving(&self) -> Vec<String> {
        let state = self.state();
        let leaving = state.pods.iter().filter(|(_, lived)| !*lived.wanted.borrow());
        leaving.map(|(name, lived)| format!("{name}: {:?}", lived.last_error)).collect()
    }

    /// What the agent said last when it refused something about the pod.
    pub fn last_error(&self, pod: &str) -> Option<CniError> {
        self.state().pods.get(pod).and_then(|lived| lived.last_error.clone())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn note(&self, pod: &str, change: impl FnOnce(&mut Lived)) {
        if let Some(lived) = self.state().pods.get_mut(pod) {
            change(lived);
        }
    }

    async fn keep(self, pod: String, mut wanted: watch::Receiver<bool>, renew: Arc<Notify>) {
        let mut sandboxes = (1..).map(|attempt| format!("{pod}-{attempt}"));
        while let Some(container) = sandboxes.next() {
            let mut failed = self.start(&pod, &container).await.err();
            let mut current = container;
            while failed.is_none() {
                tokio::select! {
                    biased;
                    _ = wanted.wait_for(|wanted| !wanted) => break,
                    () = renew.notified() => {}
                }
                // The new sandbox comes before the old one goes.
                let Some(fresh) = sandboxes.next() else { break };
                failed = self.start(&pod, &fresh).await.err();
                self.remove(&pod, &std::mem::replace(&mut current, fresh)).await;
            }
            self.note(&pod, |lived| lived.sandbox = None);
            self.remove(&pod, &current).await;
            if !*wanted.borrow() {
                self.state().pods.remove(&pod);
                return;
            }
            tokio::time::sleep(RETRY).await;
        }
    }

    /// ADD, once.
    async fn start(&self, pod: &str, container: &str) -> Result<(), ()> {
        match self.add(pod, container).await {
            Ok(address) => {
                let sandbox = Some(Sandbox { container: container.to_owned(), address });
                self.note(pod, |lived| lived.sandbox = sandbox);
                Ok(())
            }
            Err(error) => {
                self.note(pod, |lived| (lived.sandbox, lived.last_error) = (None, Some(error)));
                Err(())
            }
        }
    }

    /// DEL, until it succeeds.
    async fn remove(&self, pod: &str, container: &str) {
        while let Err(error) = self.del(pod, container).await {
            self.note(pod, |lived| lived.last_error = Some(error));
            tokio::time::sleep(RETRY).await;
        }
    }

    /// ADD, once: the address.
    ///
    /// # Errors
    /// What the agent says, or that it is away.
    pub async fn add(&self, pod: &str, container: &str) -> Result<Ipv4Addr, CniError> {
        let command = Command::Add(sandbox(pod, container));
        let Reply::Attached(attached) = self.call(command, Some(any_file())).await? else {
            return Err(CniError::new(Code::UNKNOWN_CONTAINER, "no answer to ADD", ""));
        };
        match attached.addresses[..] {
            [IpAddr::V4(address)] => Ok(address),
            _ => Err(CniError::new(Code::NO_ADDRESS, "not one address", format!("{:?}", attached.addresses))),
        }
    }

    /// DEL, once.
    ///
    /// # Errors
    /// What the agent says, or that it is away.
    pub async fn del(&self, pod: &str, container: &str) -> Result<(), CniError> {
        self.call(Command::Del(sandbox(pod, container)), None).await.map(drop)
    }

    /// One call, as the plugin would make it.
    async fn call(&self, command: Command, netns: Option<OwnedFd>) -> Result<Reply, CniError> {
        let away = |what: &str| CniError::new(Code::TRY_AGAIN_LATER, "the agent is away", what);
        let answer = {
            let mut state = self.state();
            let pods = state.socket.as_ref().and_then(|socket| socket.borrow().clone());
            let pods = pods.ok_or_else(|| away("no socket, or not ready"))?;
            let (reply, answer) = oneshot::channel();
            let request = Request { network: NETWORK.to_owned(), command, settings: Settings::default() };
            state.calls.spawn(async move {
                // The caller may have been killed as well.
                let _ = reply.send(pods.serve(request, netns).await);
            });
            answer
        };
        match answer.await {
            Ok(Reply::Error(error)) => Err(error),
            Ok(reply) => Ok(reply),
            Err(_) => Err(away("it ended in the middle of the call")),
        }
    }
}

fn sandbox(pod: &str, container: &str) -> Container {
    let pod =
        Pod { namespace: NAMESPACE.to_owned(), name: pod.to_owned(), infra_container_id: None, uid: None };
    Container {
        container_id: container.to_owned(),
        pod_device: "eth0".to_owned(),
        pod: Some(pod),
        ..Container::default()
    }
}

/// A descriptor; the fake kernel looks at none.
fn any_file() -> OwnedFd {
    File::open("/dev/null").expect("every Linux has /dev/null").into()
}
