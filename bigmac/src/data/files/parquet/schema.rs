//! The columns of a table as trees: texts, structs and lists, with the levels at which each is null (Melnik et al.,
//! "Dremel", section 4; the rules for lists are those of parquet-format's LogicalTypes.md).

use parquet::basic::{ConvertedType, LogicalType, Repetition, Type as Physical};
use parquet::schema::types::Type;
use std::ops::Range;

/// Deeper than any record goes; a damaged file may claim more.
const DEEPEST: usize = 16;

/// A column, or a part of one.
#[derive(Debug)]
pub(super) struct Node {
    /// The definition level from which on it is not null.
    pub def: i16,
    /// The leaves below it, by their numbers in the file.
    pub leaves: Range<usize>,
    /// What it is.
    pub kind: Kind,
}

#[derive(Debug)]
pub(super) enum Kind {
    /// A value.
    Leaf(Value),
    /// Named parts.
    Struct(Vec<(String, Node)>),
    /// Any number of the same.
    List {
        /// The repetition level of another element of it.
        rep: i16,
        /// The definition level from which on it has an element.
        def: i16,
        element: Box<Node>,
    },
}

/// What a leaf holds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    Text,
    /// Bytes that are not said to be text.
    Bytes,
    Number,
    /// What no record holds.
    Other,
}

impl Node {
    /// The tree of a field whose first leaf is number `leaf`.
    ///
    /// # Errors
    /// For maps, and for what is not a well-formed list.
    pub fn of_field(field: &Type, leaf: usize) -> Result<Self, String> {
        Builder { leaf }.node(field, 0, 0, 0)
    }

    /// What it is, for people.
    pub fn name(&self) -> String {
        match &self.kind {
            Kind::Leaf(Value::Text) => "text".into(),
            Kind::Leaf(Value::Bytes) => "bytes".into(),
            Kind::Leaf(Value::Number) => "a number".into(),
            Kind::Leaf(Value::Other) => "a value of a fixed width".into(),
            Kind::Struct(fields) => {
                let names: Vec<&str> = fields.iter().map(|(name, _)| name.as_str()).collect();
                format!("a struct of {}", names.join(", "))
            }
            Kind::List { element, .. } => format!("a list of {}", element.name()),
        }
    }

    /// The one leaf of a node that is a leaf itself.
    pub fn leaf(&self) -> usize {
        self.leaves.start
    }

    /// Whether it holds anything but text and numbers.
    pub fn has_other_than_text(&self) -> bool {
        match &self.kind {
            Kind::Leaf(value) => matches!(value, Value::Other),
            Kind::Struct(fields) => fields.iter().any(|(_, node)| node.has_other_than_text()),
            Kind::List { element, .. } => element.has_other_than_text(),
        }
    }
}

struct Builder {
    leaf: usize,
}

impl Builder {
    /// A node below one with levels `def` and `rep`.
    fn node(&mut self, field: &Type, def: i16, rep: i16, depth: usize) -> Result<Node, String> {
        if depth > DEEPEST {
            return Err("is nested too deeply".into());
        }
        let repetition = match field.get_basic_info() {
            info if info.has_repetition() => info.repetition(),
            _ => Repetition::REQUIRED,
        };
        match repetition {
            Repetition::REQUIRED => self.present(field, def, rep, depth),
            Repetition::OPTIONAL => self.present(field, def + 1, rep, depth),
            // Without a list around it, what is repeated is itself the list.
            Repetition::REPEATED => {
                let element = Box::new(self.present(field, def + 1, rep + 1, depth + 1)?);
                let leaves = element.leaves.clone();
                Ok(Node { def, leaves, kind: Kind::List { rep: rep + 1, def: def + 1, element } })
            }
        }
    }

    /// A node whose own levels, where it is not null, are `def` and `rep`.
    fn present(&mut self, field: &Type, def: i16, rep: i16, depth: usize) -> Result<Node, String> {
        if field.is_primitive() {
            self.leaf += 1;
            return Ok(Node { def, leaves: self.leaf - 1..self.leaf, kind: Kind::Leaf(value(field)) });
        }
        let info = field.get_basic_info();
        let first = self.leaf;
        if is(info.logical_type_ref(), &LogicalType::List) || info.converted_type() == ConvertedType::LIST {
            let [repeated] = field.get_fields() else {
                return Err("is not a list as Parquet has them".into());
            };
            if !repeated.get_basic_info().has_repetition()
                || repeated.get_basic_info().repetition() != Repetition::REPEATED
            {
                return Err("is not a list as Parquet has them".into());
            }
            let legacy = ["array", &format!("{}_tuple", field.name())].contains(&repeated.name());
            let element = match repeated.is_group().then(|| repeated.get_fields()) {
                Some([element]) if !legacy => self.node(element, def + 1, rep + 1, depth + 1)?,
                _ => self.present(repeated, def + 1, rep + 1, depth + 1)?,
            };
            let kind = Kind::List { rep: rep + 1, def: def + 1, element: Box::new(element) };
            return Ok(Node { def, leaves: first..self.leaf, kind });
        }
        if is(info.logical_type_ref(), &LogicalType::Map)
            || matches!(info.converted_type(), ConvertedType::MAP | ConvertedType::MAP_KEY_VALUE)
        {
            return Err("is a map, which is not read".into());
        }
        let mut fields = Vec::with_capacity(field.get_fields().len());
        for part in field.get_fields() {
            fields.push((part.name().to_owned(), self.node(part, def, rep, depth + 1)?));
        }
        Ok(Node { def, leaves: first..self.leaf, kind: Kind::Struct(fields) })
    }
}

fn is(found: Option<&LogicalType>, wanted: &LogicalType) -> bool {
    found == Some(wanted)
}

fn value(field: &Type) -> Value {
    let info = field.get_basic_info();
    let logical = info.logical_type_ref();
    let text = [LogicalType::String, LogicalType::Json, LogicalType::Enum].iter().any(|t| is(logical, t))
        || matches!(info.converted_type(), ConvertedType::UTF8 | ConvertedType::JSON | ConvertedType::ENUM);
    match field.get_physical_type() {
        Physical::BYTE_ARRAY if text => Value::Text,
        Physical::BYTE_ARRAY => Value::Bytes,
        Physical::BOOLEAN | Physical::INT32 | Physical::INT64 | Physical::FLOAT | Physical::DOUBLE => {
            Value::Number
        }
        Physical::INT96 | Physical::FIXED_LEN_BYTE_ARRAY => Value::Other,
    }
}
