//! What an upstream said instead of articles.

/// An answer that is no list of articles, in the upstream's own words where it gave any.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// It says that the quota is spent, whatever its status says.
    pub(crate) spent: bool,
}

impl Refusal {
    /// The upstream's words on one line; not yet fit to be shown.
    pub(crate) fn words(&self) -> String {
        let words: Vec<&str> = [&self.code, &self.message]
            .into_iter()
            .filter_map(Option::as_deref)
            .collect();
        words.join(": ")
    }
}
