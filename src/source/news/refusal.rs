//! An upstream's answer without articles.

/// An answer that is not a list of articles, with the upstream's own code and message if it has
/// them.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) code: Option<String>,
    pub(crate) message: Option<String>,
    /// It means that the quota is spent, whatever its status.
    pub(crate) spent: bool,
}

impl Refusal {
    /// Its code and message as one text, not sanitized yet.
    pub(crate) fn text(&self) -> String {
        let words: Vec<&str> = [&self.code, &self.message]
            .into_iter()
            .filter_map(Option::as_deref)
            .collect();
        words.join(": ")
    }
}
