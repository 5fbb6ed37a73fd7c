//! The fenced blocks of the documents.

use std::fs;
use std::path::Path;

/// A fenced block.
#[derive(Clone, Debug)]
pub struct Block {
    /// The path of its document: `docs/sql.md`.
    pub document: String,
    /// The line of its first fence, counted from 1.
    pub line: usize,
    /// The heading of level 2 above it.
    pub section: String,
    /// What its fence says: `toml`.
    pub language: String,
    /// Its lines without the indentation of the fence, each with its end.
    pub text: String,
}

impl Block {
    /// Its place, as editors take it.
    pub fn place(&self) -> String {
        format!("{}:{}", self.document, self.line)
    }

    /// The name of a statement whose first line says which file it is.
    pub fn statement(&self) -> Option<&str> {
        let named = self.text.strip_prefix("-- sql/queries/")?;
        named.split_once(".sql\n").map(|(name, _)| name)
    }
}

/// The path of a file of the repository.
pub fn path_of(file: &str) -> String {
    format!("{}/{file}", env!("CARGO_MANIFEST_DIR"))
}

pub fn text_of(file: &str) -> String {
    fs::read_to_string(path_of(file)).unwrap()
}

/// All documents: README.md, those under docs/, and that of the crate.
pub fn documents() -> Vec<String> {
    let mut found = vec![
        "README.md".to_owned(),
        "crates/larder-cache/README.md".to_owned(),
    ];
    find(Path::new("docs"), &mut found);
    found.sort();
    found
}

fn find(folder: &Path, found: &mut Vec<String>) {
    for entry in fs::read_dir(path_of(folder.to_str().unwrap())).unwrap() {
        let path = folder.join(entry.unwrap().file_name());
        if Path::new(&path_of(path.to_str().unwrap())).is_dir() {
            find(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "md") {
            found.push(path.to_str().unwrap().to_owned());
        }
    }
}

/// The blocks of all documents.
pub fn all() -> Vec<Block> {
    let documents = documents();
    let of = |document: &String| blocks(document, &text_of(document));
    documents.iter().flat_map(of).collect()
}

/// The blocks of all documents that are fenced as this language.
pub fn fenced_as(language: &str) -> Vec<Block> {
    let mut all = all();
    all.retain(|block| block.language == language);
    all
}

fn blocks(document: &str, text: &str) -> Vec<Block> {
    let mut found: Vec<Block> = Vec::new();
    let mut section = String::new();
    // The indentation of the open fence.
    let mut open: Option<usize> = None;
    for (at, line) in text.lines().enumerate() {
        let trimmed = line.trim_start();
        let indent = line.len() - trimmed.len();
        match (open, trimmed.strip_prefix("```")) {
            (None, Some(language)) => {
                open = Some(indent);
                found.push(Block {
                    document: document.to_owned(),
                    line: at + 1,
                    section: section.clone(),
                    language: language.trim().to_owned(),
                    text: String::new(),
                });
            }
            (Some(_), Some("")) => open = None,
            (Some(indent), _) => {
                let block = found.last_mut().unwrap();
                block.text += line.get(indent..).unwrap_or_default();
                block.text += "\n";
            }
            (None, None) => {
                if let Some(heading) = line.strip_prefix("## ") {
                    section = heading.to_owned();
                }
            }
        }
    }
    assert_eq!(open, None, "{document}: a fence is open at its end");
    found
}

#[test]
fn blocks_are_found_with_their_sections_and_without_their_indentation() {
    let text = "```sh\na\n```\n## Two\n- x\n  ```sql\n  SELECT 1;\n    AND;\n  ```\n### Three\n```\nb\n\n```\n";
    let found = blocks("x.md", text);
    let fields: Vec<_> = found
        .iter()
        .map(|block| {
            let (section, language) = (block.section.as_str(), block.language.as_str());
            (block.line, section, language, block.text.as_str())
        })
        .collect();
    assert_eq!(
        fields,
        [
            (1, "", "sh", "a\n"),
            (6, "Two", "sql", "SELECT 1;\n  AND;\n"),
            (11, "Two", "", "b\n\n"),
        ]
    );
}
