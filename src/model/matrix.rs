//! Dense feature rows.

/// Row-major `rows × columns`; NaN means missing.
#[derive(Clone, Debug, PartialEq)]
pub struct Matrix {
    pub columns: usize,
    pub data: Vec<f32>,
}

impl Matrix {
    pub fn new(columns: usize) -> Self {
        Self {
            columns,
            data: Vec::new(),
        }
    }

    /// Whole rows held; a matrix without columns has none.
    pub fn rows(&self) -> usize {
        self.data.len().checked_div(self.columns).unwrap_or(0)
    }

    pub fn row(&self, index: usize) -> &[f32] {
        &self.data[index * self.columns..][..self.columns]
    }

    /// Adds a row of missing values.
    pub fn push(&mut self) -> &mut [f32] {
        let end = self.data.len();
        self.data.resize(end + self.columns, f32::NAN);
        &mut self.data[end..]
    }

    /// These columns of all rows.
    pub fn select(&self, columns: &[usize]) -> Self {
        self.select_rows(0..self.rows(), columns)
    }

    /// These columns of these rows.
    pub fn select_rows(&self, rows: impl IntoIterator<Item = usize>, columns: &[usize]) -> Self {
        let mut selected = Self::new(columns.len());
        for row in rows {
            let row = self.row(row);
            selected.data.extend(columns.iter().map(|&c| row[c]));
        }
        selected
    }
}
