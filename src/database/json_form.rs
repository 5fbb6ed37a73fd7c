//! The JSON form of a type of the database: what its values are in the rows of a query, and what a
//! parameter of the type takes.

/// What a value is in JSON, if it is not null.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum JsonForm {
    /// Any JSON.
    Any,
    /// Any JSON without a NUL character in its strings and names (`jsonb`).
    AnyWithoutNul,
    /// Never anything but null.
    Null,
    /// `true` or `false`.
    Boolean,
    /// A whole number.
    Integer {
        /// The lowest.
        min: i64,
        /// The highest.
        max: i64,
    },
    /// A number of any precision, or `"NaN"`, `"Infinity"` or `"-Infinity"`.
    Number {
        /// Whether it has every digit (`numeric`). Otherwise it is a float.
        exact: bool,
    },
    /// A string.
    Text {
        /// The name of its format in JSON Schema, such as `date-time`, if it has one.
        format: Option<&'static str>,
    },
    /// One of these strings.
    OneOf(Vec<String>),
    /// A string of base64.
    Base64,
    /// An array, nested once per dimension.
    Array(Box<JsonForm>),
    /// A value that SQLite stores as it comes: a number or a string. A parameter takes any JSON.
    Stored {
        /// The declared type of its column, which SQLite does not enforce. `None`: an expression,
        /// or a parameter.
        declared: Option<String>,
    },
}

/// A column of a result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ColumnForm {
    /// What its values are.
    pub form: JsonForm,
    /// Whether a value may be null.
    pub nullable: bool,
}
