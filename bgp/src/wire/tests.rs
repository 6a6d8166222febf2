//! To be filled by golden messages.
