//! A Parquet file: its footer, which is kept, and its columns, which are opened when they are read. Every reader has a
//! file handle of its own, as handles that are cloned share one position, and pictures are read from many threads.

use super::error::DataError;
use super::footer;
use super::guard::guarded;
use bigmac_runtime::open::open_file;
use parquet::column::reader::{ColumnReader, get_column_reader};
use parquet::file::metadata::{PageIndexPolicy, ParquetMetaData, ParquetMetaDataReader};
use parquet::file::page_index::offset_index::PageLocation;
use parquet::file::properties::ReaderProperties;
use parquet::file::serialized_reader::SerializedPageReader;
use std::fs::File;
use std::hash::{Hash, Hasher};
use std::io;
use std::path::Path;
use std::sync::Arc;

/// A Parquet file's footer.
#[derive(Debug)]
pub(in crate::data) struct Table {
    file: Arc<Path>,
    metadata: ParquetMetaData,
}

/// A picture in a table.
#[derive(Clone, Debug)]
pub(in crate::data) struct Cell {
    /// The table.
    pub table: Arc<Table>,
    /// Its row group.
    pub group: u32,
    /// The leaf that holds the bytes.
    pub leaf: u32,
    /// The row in the row group, from 0.
    pub row: u32,
    /// Which element of the row's list, from 0; 0 where there is no list.
    pub element: u32,
    /// What it is called.
    pub name: Arc<str>,
}

/// The same place of the same file.
impl PartialEq for Cell {
    fn eq(&self, other: &Self) -> bool {
        let place = |cell: &Cell| (cell.group, cell.leaf, cell.row, cell.element);
        self.table.file == other.table.file && place(self) == place(other)
    }
}

impl Eq for Cell {}

impl Hash for Cell {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (&self.table.file, self.group, self.leaf, self.row, self.element).hash(state);
    }
}

impl Table {
    /// Reads the footer of a file, and where the pages of the leaves `wanted` of its schema lie.
    ///
    /// # Errors
    /// When the file cannot be read, is not a Parquet file, or its footer does not fit its length.
    pub fn open(
        file: &Arc<Path>,
        wanted: impl Fn(&ParquetMetaData) -> Vec<usize>,
    ) -> Result<Self, DataError> {
        let handle = open_file(file).map_err(DataError::read(file))?;
        let len = handle.metadata().map_err(DataError::read(file))?.len();
        let read = guarded(|| {
            footer::check(&handle, len)?;
            let metadata =
                ParquetMetaDataReader::new().parse_and_finish(&handle).map_err(|e| e.to_string())?;
            check(&metadata, len)?;
            let leaves = wanted(&metadata);
            let mut reader = ParquetMetaDataReader::new_with_metadata(metadata.clone())
                .with_offset_index_policy(PageIndexPolicy::Optional)
                .with_offset_index_mask(parquet::file::metadata::ColumnChunkMask::columns(leaves));
            // An index that cannot be read is done without: pages then tell their lengths themselves.
            let indexed = reader.read_page_indexes(&handle).and_then(|()| reader.finish());
            Ok(indexed.unwrap_or(metadata))
        });
        let metadata = read.map_err(|problem| {
            let problem = format!(
                "cannot be read as a Parquet file ({problem}); is it cut short, damaged or of another kind? Copy or download \
                 it again"
            );
            DataError::contents(file, problem)
        })?;
        Ok(Table { file: Arc::clone(file), metadata })
    }

    /// The footer.
    pub fn metadata(&self) -> &ParquetMetaData {
        &self.metadata
    }

    /// Opens a leaf of a row group at its first row.
    ///
    /// # Errors
    /// When the file cannot be opened, or the leaf's compression is unknown.
    pub fn leaf(&self, group: usize, leaf: usize) -> Result<ColumnReader, String> {
        let text = |error: parquet::errors::ParquetError| error.to_string();
        let row_group = self.metadata.row_groups().get(group).ok_or("a row group is missing")?;
        let chunk = row_group.columns().get(leaf).ok_or("a column is missing")?;
        let rows = usize::try_from(row_group.num_rows()).map_err(|error| error.to_string())?;
        let file = Arc::new(File::open(&self.file).map_err(|error| error.to_string())?);
        let properties = Arc::new(ReaderProperties::builder().build());
        let locations = self.locations(group, leaf, rows).map(<[_]>::to_vec);
        let pages = SerializedPageReader::new_with_properties(file, chunk, rows, locations, properties)
            .map_err(text)?;
        Ok(get_column_reader(chunk.column_descr_ptr(), Box::new(pages)))
    }

    /// Where the pages of a leaf lie, if the file says so and it can be true.
    fn locations(&self, group: usize, leaf: usize, rows: usize) -> Option<&[PageLocation]> {
        let pages = self.metadata.page_index()?.offset_index(group, leaf)?.page_locations();
        let (start, len) = self.metadata.row_group(group).column(leaf).byte_range();
        let first = pages.first()?;
        let inside = |page: &PageLocation| {
            page.compressed_page_size > 0
                && u64::try_from(page.offset).is_ok_and(|offset| {
                    offset >= start && offset + page.compressed_page_size as u64 <= start + len
                })
                && (0..rows as i64).contains(&page.first_row_index)
        };
        let ascending = pages
            .windows(2)
            .all(|pair| pair[0].first_row_index < pair[1].first_row_index && pair[0].offset < pair[1].offset);
        (first.first_row_index == 0 && ascending && pages.iter().all(inside)).then_some(pages)
    }
}

impl Cell {
    /// The file, and where in it.
    pub fn place(&self) -> String {
        let Cell { table, group, leaf, row, element, .. } = self;
        format!("{}, group {group}, leaf {leaf}, row {row}, element {element}", table.file.display())
    }

    /// The encoded picture. Pages that lie before it are stepped over.
    ///
    /// # Errors
    /// When the file cannot be read, or is damaged at this place.
    pub fn read(&self) -> io::Result<Vec<u8>> {
        let table = &self.table;
        // Opened here as well, so that a file that is gone is an error of its own kind.
        File::open(&table.file)?;
        guarded(|| self.bytes()).map_err(|problem| {
            io::Error::other(format!("row group {}, row {}: {problem}", self.group + 1, self.row + 1))
        })
    }

    fn bytes(&self) -> Result<Vec<u8>, String> {
        let ColumnReader::ByteArrayColumnReader(mut reader) =
            self.table.leaf(self.group as usize, self.leaf as usize)?
        else {
            return Err("the column does not hold bytes".into());
        };
        let text = |error: parquet::errors::ParquetError| error.to_string();
        let short = || "the column ends before it".to_owned();
        let row = self.row as usize;
        if reader.skip_records(row).map_err(text)? != row {
            return Err(short());
        }
        let (mut defs, mut reps, mut values) = (Vec::new(), Vec::new(), Vec::new());
        let (records, _, _) =
            reader.read_records(1, Some(&mut defs), Some(&mut reps), &mut values).map_err(text)?;
        if records != 1 {
            return Err(short());
        }
        let column = self.table.metadata.row_group(self.group as usize).column(self.leaf as usize);
        let full = column.column_descr().max_def_level();
        let element = self.element as usize;
        let at = match full {
            0 => 0,
            _ if defs.get(element) == Some(&full) => {
                defs[..element].iter().filter(|&&def| def == full).count()
            }
            _ => {
                return Err(
                    "holds no picture, though the file's statistics say so; write the file again".into()
                );
            }
        };
        values.get(at).map(|value| value.data().to_vec()).ok_or_else(short)
    }
}

/// Checks what the crate takes on trust: that row groups and columns lie within the file.
fn check(metadata: &ParquetMetaData, len: u64) -> Result<(), String> {
    let leaves = metadata.file_metadata().schema_descr().num_columns();
    let mut rows = 0u64;
    for group in metadata.row_groups() {
        let count = u64::try_from(group.num_rows()).map_err(|_| "a row group has less than no rows")?;
        rows = rows.checked_add(count).ok_or("too many rows")?;
        if group.num_columns() != leaves {
            return Err(format!("a row group has {} columns, expected {leaves}", group.num_columns()));
        }
        for column in group.columns() {
            let flat = column.column_descr().max_rep_level() == 0;
            let values = u64::try_from(column.num_values()).unwrap_or(0);
            if (flat && values != count) || values < count {
                return Err(format!("a column has {values} values for {count} rows"));
            }
            if column.file_path().is_some_and(|path| !path.is_empty()) {
                return Err("a column lies in another file, which is not read".into());
            }
            let start = column.dictionary_page_offset().unwrap_or(column.data_page_offset());
            let end = u64::try_from(start).ok().zip(u64::try_from(column.compressed_size()).ok());
            let end = end.and_then(|(start, size)| start.checked_add(size));
            if column.data_page_offset() < 0 || end.is_none_or(|end| end > len) {
                return Err("a column reaches beyond the end of the file".into());
            }
        }
    }
    if rows > u64::from(u32::MAX) {
        return Err(format!("{rows} rows, but at most {} can be read from one file", u32::MAX));
    }
    Ok(())
}
