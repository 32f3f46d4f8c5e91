//! What the columns of a table are for.

use super::super::super::forms;
use super::schema::{Kind, Node, Value};
use parquet::file::metadata::ParquetMetaData;

/// Columns that hold pictures, or name them.
const PICTURES: [&str; 3] = ["image", "images", DRAW];
const DRAW: &str = "draw";
/// Columns of turns.
const TURNS: [&str; 2] = ["messages", "conversations"];
/// The numbers of rows, as pandas writes them.
const INDEX: &str = "__index_level_0__";

/// A column that is read.
#[derive(Debug)]
pub(super) struct Column {
    pub name: String,
    pub node: Node,
    pub role: Role,
}

/// What a column is for.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Role {
    /// A value of the record under the column's name.
    Key,
    /// Turns, as a list of structs, or as text that holds them as JSON.
    Turns,
    /// Pictures, with the leaves of their bytes and their paths.
    Pictures { bytes: Option<usize>, path: Option<usize> },
}

impl Column {
    /// Whether its pictures are to be drawn.
    pub fn is_draw(&self) -> bool {
        self.name == DRAW
    }
}

/// The columns of a table that are read.
///
/// # Errors
/// For a column that is not known and is not null throughout, and for one of another type than is expected.
pub(super) fn columns(metadata: &ParquetMetaData) -> Result<Vec<Column>, String> {
    let schema = metadata.file_metadata().schema_descr();
    let mut columns = Vec::new();
    let mut leaf = 0;
    for field in schema.root_schema().get_fields() {
        let first = leaf;
        while leaf < schema.num_columns()
            && schema.column(leaf).path().parts().first().is_some_and(|n| n == field.name())
        {
            leaf += 1;
        }
        let name = field.name();
        if name == INDEX || (first..leaf).all(|leaf| is_null(metadata, leaf)) {
            continue;
        }
        let wrong = |problem: String| format!("column '{name}' {problem}");
        if !forms::reads_key(name).map_err(|problem| format!("of its columns, {problem}"))? {
            continue;
        }
        let node = Node::of_field(field, first);
        let expected = |node: &Node, wanted: &str| wrong(format!("is {}, expected {wanted}", node.name()));
        let role = if PICTURES.contains(&name) {
            let node = node.as_ref().map_err(|problem| wrong(problem.clone()))?;
            pictures(node).ok_or_else(|| {
                expected(
                    node,
                    "pictures: bytes, or a struct of bytes and path, or paths as text, or a list of these",
                )
            })?
        } else if TURNS.contains(&name) {
            Role::Turns
        } else {
            Role::Key
        };
        let node = node.map_err(wrong)?;
        if !matches!(role, Role::Pictures { .. }) && node.has_other_than_text() {
            return Err(expected(&node, "text"));
        }
        columns.push(Column { name: name.to_owned(), node, role });
    }
    if columns.is_empty() && metadata.file_metadata().num_rows() > 0 {
        return Err("it has no column with anything to learn; give it 'text', or 'messages'".into());
    }
    Ok(columns)
}

/// Whether a column holds pictures (or names of them), and where.
fn pictures(node: &Node) -> Option<Role> {
    match &node.kind {
        Kind::Leaf(Value::Text) => Some(Role::Key),
        Kind::Leaf(Value::Bytes) => Some(Role::Pictures { bytes: Some(node.leaf()), path: None }),
        Kind::Leaf(_) => None,
        Kind::Struct(fields) => {
            let (mut bytes, mut path) = (None, None);
            for (name, part) in fields {
                match (name.as_str(), &part.kind) {
                    ("bytes", Kind::Leaf(Value::Bytes)) => bytes = Some(part.leaf()),
                    ("path", Kind::Leaf(Value::Text | Value::Bytes)) => path = Some(part.leaf()),
                    _ => return None,
                }
            }
            Some(Role::Pictures { bytes, path })
        }
        Kind::List { element, .. } if !matches!(element.kind, Kind::List { .. }) => pictures(element),
        Kind::List { .. } => None,
    }
}

/// Whether the statistics say that a leaf is null in every row.
fn is_null(metadata: &ParquetMetaData, leaf: usize) -> bool {
    metadata.row_groups().iter().all(|group| {
        let column = group.column(leaf);
        let nulls = column.statistics().and_then(|statistics| statistics.null_count_opt());
        nulls.is_some() && nulls == u64::try_from(column.num_values()).ok()
    })
}
