//! Values that are passed on by being the latest: whoever waits for one is woken by a difference, not by a repetition.

use tokio::sync::watch;

/// Makes `new` the latest value; wakes nobody if it was that before.
pub fn set<T: PartialEq>(sender: &watch::Sender<T>, new: T) {
    sender.send_if_modified(|current| {
        let changed = *current != new;
        if changed {
            *current = new;
        }
        changed
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_repetition_wakes_nobody_and_a_difference_does() {
        let (sender, mut receiver) = watch::channel(1);
        set(&sender, 1);
        assert!(!receiver.has_changed().unwrap());
        set(&sender, 2);
        assert!(receiver.has_changed().unwrap());
        assert_eq!(*receiver.borrow_and_update(), 2);
    }
}
