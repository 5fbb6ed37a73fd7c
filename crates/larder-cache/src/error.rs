//! Why a load has no value. The variants differ by what the caller does next.
//!
//! [`LoadError`] is what all loads and lookups of bytes end with. It goes to other replicas as one
//! line of text. A loader's error of a type of its own stays as it is within its process: see
//! [`LoadError::own`]. [`Error`] is what the typed lookups end with: it has that error by its type.

use std::any::Any;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

/// A load that failed. Its text names no secret: it is for logs and for answers alike.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LoadError {
    /// The source failed, or its answer is not a value.
    Failed(String),
    /// The loader failed with an error of a type of its own. Other replicas, and readers that come
    /// during the pause after it, get its text.
    Own(OwnError),
    /// The source did not answer within its deadline.
    TooSlow(String),
    /// The source's quota is spent, by this program's own count. It is available again after the
    /// given time.
    Spent {
        /// Which source.
        what: String,
        /// How long until it may be asked again.
        retry_after: Duration,
    },
    /// The source asks for a pause. It is not asked before the pause is over, unless the value is
    /// invalidated.
    Paused {
        /// Which source, and its message.
        what: String,
        /// How long until it is asked again.
        retry_after: Duration,
        /// Whether the pause is for all loads of the same share, or for this key only.
        whole_source: bool,
    },
    /// A load failed a moment ago, and is not tried again yet.
    BackingOff {
        /// The reason.
        what: String,
        /// Whether that was a source that did not answer in time.
        slow: bool,
        /// How long until it is asked again.
        retry_after: Duration,
    },
    /// The request is wrong, and stays wrong: the source cannot use a parameter of it.
    Unfit {
        /// Which parameter does not fit.
        parameter: String,
        /// What would be valid.
        valid: String,
    },
    /// Too many loads run and wait already; none was begun.
    Overloaded,
    /// Something that cannot happen has happened: this is a fault of this program.
    Bug(String),
}

/// An error of a loader's own type: see [`LoadError::own`].
#[derive(Clone)]
pub struct OwnError {
    text: Arc<str>,
    error: Arc<dyn Any + Send + Sync>,
}

impl OwnError {
    /// The error, if it is of this type. It is shared by all who waited for its load.
    pub fn get<E: Send + Sync + 'static>(&self) -> Option<Arc<E>> {
        self.error.clone().downcast().ok()
    }
}

impl fmt::Display for OwnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl fmt::Debug for OwnError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "OwnError({:?})", self.text)
    }
}

impl PartialEq for OwnError {
    /// Whether both are the error of one load.
    fn eq(&self, other: &OwnError) -> bool {
        Arc::ptr_eq(&self.error, &other.error)
    }
}

impl Eq for OwnError {}

impl LoadError {
    /// The failure of a loader with `error`, whose text goes to the log and to other replicas. It
    /// must name no secret.
    pub fn own<E: fmt::Display + Send + Sync + 'static>(error: E) -> LoadError {
        LoadError::Own(OwnError {
            text: error.to_string().into(),
            error: Arc::new(error),
        })
    }

    /// Whether the error was known without asking, so that nobody waited for it.
    pub(crate) fn is_known(&self) -> bool {
        matches!(
            self,
            LoadError::Spent { .. }
                | LoadError::Paused { .. }
                | LoadError::BackingOff { .. }
                | LoadError::Overloaded
        )
    }

    /// Whether the source works and only limits how often it is asked.
    pub(crate) fn is_spent(&self) -> bool {
        matches!(self, LoadError::Spent { .. } | LoadError::Paused { .. })
    }

    /// How long until it makes sense to ask again, where that is known.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            LoadError::Spent { retry_after, .. }
            | LoadError::Paused { retry_after, .. }
            | LoadError::BackingOff { retry_after, .. } => Some(*retry_after),
            LoadError::Overloaded => Some(Duration::from_secs(1)),
            LoadError::Failed(_)
            | LoadError::Own(_)
            | LoadError::TooSlow(_)
            | LoadError::Unfit { .. }
            | LoadError::Bug(_) => None,
        }
    }
}

impl fmt::Display for LoadError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            LoadError::Failed(what)
            | LoadError::TooSlow(what)
            | LoadError::BackingOff { what, .. } => f.write_str(what),
            LoadError::Own(error) => fmt::Display::fmt(error, f),
            LoadError::Spent { what, retry_after } => {
                write!(
                    f,
                    "{what}: quota spent, back in {}s",
                    retry_after.as_secs_f64().ceil()
                )
            }
            LoadError::Paused {
                what, retry_after, ..
            } => {
                let wait = retry_after.as_secs_f64().ceil();
                write!(f, "{what}: not asked again for {wait}s")
            }
            LoadError::Unfit { parameter, valid } => {
                write!(f, "parameter `{parameter}` does not fit; valid: {valid}")
            }
            LoadError::Overloaded => f.write_str("too many loads are waiting"),
            LoadError::Bug(what) => write!(f, "internal error: {what}"),
        }
    }
}

impl std::error::Error for LoadError {}

impl LoadError {
    /// One line for other replicas that waited for this load.
    pub(crate) fn to_wire(&self) -> String {
        match self {
            LoadError::Failed(what) | LoadError::BackingOff { what, .. } => {
                format!("failed 0 {what}")
            }
            LoadError::Own(error) => format!("failed 0 {error}"),
            LoadError::TooSlow(what) => format!("slow 0 {what}"),
            LoadError::Spent { what, retry_after } => {
                format!("spent {} {what}", retry_after.as_millis())
            }
            LoadError::Paused {
                what,
                retry_after,
                whole_source,
            } => {
                let kind = if *whole_source {
                    "paused-source"
                } else {
                    "paused-key"
                };
                format!("{kind} {} {what}", retry_after.as_millis())
            }
            LoadError::Bug(_) => format!("failed 0 {self}"),
            // A parameter's name has no space.
            LoadError::Unfit { parameter, valid } => format!("unfit {parameter} {valid}"),
            LoadError::Overloaded => "overloaded 0 ".to_owned(),
        }
    }

    /// What [`LoadError::to_wire`] wrote; a failure for anything else.
    pub(crate) fn from_wire(line: &str) -> LoadError {
        let mut parts = line.splitn(3, ' ');
        let mut next = || parts.next().unwrap_or_default();
        let (kind, number, what) = (next(), next(), next().to_owned());
        match kind {
            "slow" => LoadError::TooSlow(what),
            "spent" => LoadError::Spent {
                what,
                retry_after: Duration::from_millis(number.parse().unwrap_or(1000)),
            },
            "paused-source" | "paused-key" => LoadError::Paused {
                what,
                retry_after: Duration::from_millis(number.parse().unwrap_or(1000)),
                whole_source: kind == "paused-source",
            },
            "unfit" => LoadError::Unfit {
                parameter: number.to_owned(),
                valid: what,
            },
            "overloaded" => LoadError::Overloaded,
            _ => LoadError::Failed(what),
        }
    }

    /// The failure of a loader that panicked.
    pub(crate) fn panicked() -> LoadError {
        LoadError::Failed("the load panicked".to_owned())
    }

    /// One error for parts that all failed. What is true of each is true of the composite;
    /// otherwise it simply failed.
    pub(crate) fn of_parts(errors: impl Iterator<Item = LoadError>) -> LoadError {
        let errors: Vec<LoadError> = errors.collect();
        if errors.is_empty() {
            return LoadError::Failed("no composite can be made of the parts".to_owned());
        }
        let unfit = |error: &&LoadError| matches!(error, LoadError::Unfit { .. });
        let bug = |error: &&LoadError| matches!(error, LoadError::Bug(_));
        let mut all = errors.iter();
        if let Some(decisive) = all.clone().find(unfit).or_else(|| all.find(bug)) {
            return decisive.clone();
        }
        let text = errors
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join("; ");
        let soonest = errors.iter().filter_map(LoadError::retry_after).min();
        let all = |is: fn(&LoadError) -> bool| errors.iter().all(is);
        if all(LoadError::is_spent) {
            let what = errors
                .iter()
                .filter_map(|error| match error {
                    LoadError::Spent { what, .. } | LoadError::Paused { what, .. } => {
                        Some(what.as_str())
                    }
                    _ => None,
                })
                .collect::<Vec<_>>()
                .join(", ");
            let retry_after = soonest.unwrap_or(Duration::from_secs(1));
            if all(|error| matches!(error, LoadError::Paused { .. })) {
                LoadError::Paused {
                    what,
                    retry_after,
                    whole_source: false,
                }
            } else {
                LoadError::Spent { what, retry_after }
            }
        } else if all(|error| matches!(error, LoadError::BackingOff { .. })) {
            let slow = errors
                .iter()
                .all(|error| matches!(error, LoadError::BackingOff { slow: true, .. }));
            LoadError::BackingOff {
                what: text,
                slow,
                retry_after: soonest.unwrap_or(Duration::from_secs(1)),
            }
        } else if all(|error| matches!(error, LoadError::Overloaded)) {
            LoadError::Overloaded
        } else if all(|error| matches!(error, LoadError::TooSlow(_))) {
            LoadError::TooSlow(text)
        } else {
            LoadError::Failed(text)
        }
    }
}

/// Why a typed lookup has no value.
#[derive(Debug)]
pub enum Error<E> {
    /// The loader failed with this. All who waited for the load in this process share it.
    Load(Arc<E>),
    /// The cache has no value, for a reason of its own: the load was refused or took too long, it
    /// failed a moment ago and is not tried again yet, or it failed in another process.
    Cache(LoadError),
}

impl<E> Error<E> {
    /// The loader's error. `None`: the reason is the cache's own.
    pub fn load(&self) -> Option<&E> {
        match self {
            Error::Load(error) => Some(error),
            Error::Cache(_) => None,
        }
    }
}

impl<E: Send + Sync + 'static> From<LoadError> for Error<E> {
    /// An [`OwnError`] of the type `E` is the loader's error. All others are the cache's.
    fn from(error: LoadError) -> Error<E> {
        if let LoadError::Own(own) = &error
            && let Some(error) = own.get()
        {
            return Error::Load(error);
        }
        Error::Cache(error)
    }
}

impl<E> Clone for Error<E> {
    fn clone(&self) -> Error<E> {
        match self {
            Error::Load(error) => Error::Load(error.clone()),
            Error::Cache(error) => Error::Cache(error.clone()),
        }
    }
}

impl<E: fmt::Display> fmt::Display for Error<E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Error::Load(error) => fmt::Display::fmt(error, f),
            Error::Cache(error) => fmt::Display::fmt(error, f),
        }
    }
}

// Without `E: std::error::Error`, so that a text can be an error, too. The text is that of `E`.
impl<E: fmt::Display + fmt::Debug> std::error::Error for Error<E> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_own_error_keeps_its_type_here_and_is_a_text_elsewhere() {
        #[derive(Debug, PartialEq)]
        struct NoStation(u8);
        impl fmt::Display for NoStation {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "station {} is not there", self.0)
            }
        }
        let own = LoadError::own(NoStation(7));
        assert_eq!(own.to_string(), "station 7 is not there");
        assert_eq!(own.clone(), own);
        // Another load failed in the same way.
        assert_ne!(LoadError::own(NoStation(7)), own);
        let typed = Error::<NoStation>::from(own.clone());
        assert_eq!(typed.load(), Some(&NoStation(7)));
        assert_eq!(typed.to_string(), own.to_string());
        let (Error::Load(one), Error::Load(other)) = (&typed, Error::from(own.clone())) else {
            panic!("{typed:?}");
        };
        assert!(Arc::ptr_eq(one, &other));
        // A reader of another error type, and another replica.
        let other = Error::<String>::from(own.clone());
        assert!(other.load().is_none() && other.to_string() == own.to_string());
        let elsewhere = LoadError::from_wire(&own.to_wire());
        assert_eq!(
            elsewhere,
            LoadError::Failed("station 7 is not there".into())
        );
        assert!(Error::<NoStation>::from(elsewhere).load().is_none());
        let parts = LoadError::of_parts([own.clone(), own].into_iter());
        let text = "station 7 is not there; station 7 is not there";
        assert_eq!(parts, LoadError::Failed(text.into()));
    }

    #[test]
    fn goes_over_the_wire_and_back() {
        for error in [
            LoadError::Failed("newsapi: 500 oh no".into()),
            LoadError::TooSlow("guardian: 5s".into()),
            LoadError::Spent {
                what: "newsapi".into(),
                retry_after: Duration::from_millis(1500),
            },
            LoadError::Paused {
                what: "quotes answered 429".into(),
                retry_after: Duration::from_millis(1500),
                whole_source: true,
            },
            LoadError::Paused {
                what: "quotes answered 429".into(),
                retry_after: Duration::from_secs(1),
                whole_source: false,
            },
            LoadError::Unfit {
                parameter: "id".into(),
                valid: "a UUID".into(),
            },
            LoadError::Overloaded,
        ] {
            assert_eq!(LoadError::from_wire(&error.to_wire()), error);
        }
        assert_eq!(
            LoadError::from_wire("nonsense"),
            LoadError::Failed(String::new())
        );
    }
}
