//! Rows of larder's own queries, read by the names of their columns.

use std::sync::Arc;

use super::error::DatabaseError;
use super::sql_value::SqlValue;

/// One row of a result.
#[derive(Clone, Debug)]
pub(super) struct Row {
    names: Arc<[String]>,
    values: Vec<SqlValue>,
}

impl Row {
    pub(super) fn new(names: Arc<[String]>, values: Vec<SqlValue>) -> Row {
        Row { names, values }
    }

    /// Names and values, in the order of the query.
    pub(super) fn columns(&self) -> impl Iterator<Item = (&str, &SqlValue)> {
        self.names.iter().map(String::as_str).zip(&self.values)
    }

    /// The value of a column. `None` if the query has no such column.
    pub(super) fn get(&self, name: &str) -> Option<&SqlValue> {
        self.columns()
            .find(|(column, _)| *column == name)
            .map(|(_, value)| value)
    }

    /// An integer column. Errors if it is NULL.
    pub(super) fn int(&self, name: &str) -> Result<i64, DatabaseError> {
        self.optional_int(name)?
            .ok_or_else(|| self.wrong(name, "an integer"))
    }

    /// A text column. Errors if it is NULL.
    pub(super) fn text(&self, name: &str) -> Result<&str, DatabaseError> {
        self.optional_text(name)?
            .ok_or_else(|| self.wrong(name, "text"))
    }

    /// A boolean column. Errors if it is NULL.
    pub(super) fn bool(&self, name: &str) -> Result<bool, DatabaseError> {
        match self.get(name) {
            Some(SqlValue::Bool(b)) => Ok(*b),
            Some(SqlValue::Int(i @ (0 | 1))) => Ok(*i == 1),
            _ => Err(self.wrong(name, "a boolean")),
        }
    }

    /// An integer column. `None` is NULL.
    pub(super) fn optional_int(&self, name: &str) -> Result<Option<i64>, DatabaseError> {
        match self.get(name) {
            Some(SqlValue::Int(i)) => Ok(Some(*i)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(self.wrong(name, "an integer")),
        }
    }

    /// A text column. `None` is NULL.
    pub(super) fn optional_text(&self, name: &str) -> Result<Option<&str>, DatabaseError> {
        match self.get(name) {
            Some(SqlValue::Text(text)) => Ok(Some(text)),
            Some(SqlValue::Null) => Ok(None),
            _ => Err(self.wrong(name, "text")),
        }
    }

    fn wrong(&self, name: &str, expected: &str) -> DatabaseError {
        let found = self.get(name).map_or("not found", SqlValue::kind);
        DatabaseError::Failed(format!("column {name}: expected {expected}, is {found}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_is_read_by_name_and_strictly() {
        let names: Arc<[String]> = ["id", "name", "admin", "gone"].map(str::to_owned).into();
        let values = vec![
            SqlValue::Int(1),
            SqlValue::from("ada"),
            SqlValue::Int(1),
            SqlValue::Null,
        ];
        let row = Row::new(names, values);
        assert_eq!(row.int("id").unwrap(), 1);
        assert_eq!(row.text("name").unwrap(), "ada");
        assert!(row.bool("admin").unwrap());
        assert_eq!(row.optional_int("gone").unwrap(), None);
        assert_eq!(row.optional_text("gone").unwrap(), None);
        for wrong in [
            row.int("name").unwrap_err(),
            row.text("gone").unwrap_err(),
            row.bool("nowhere").unwrap_err(),
        ] {
            assert!(matches!(wrong, DatabaseError::Failed(_)), "{wrong}");
        }
    }
}
