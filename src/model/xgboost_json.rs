//! Tree members as XGBoost's JSON model: what Python's xgboost loads and scores the same.

use std::fmt;

use serde::de::{Deserializer, Visitor};
use serde::{Deserialize, Serialize};

use super::logit;
use super::tree::{MAX_COLUMNS, MAX_NODES, Split, Trees};

/// Parent of a root.
const NO_NODE: i64 = i32::MAX as i64;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Objective {
    /// `binary:logistic`; the score is the log-odds.
    Logistic,
    /// `reg:squarederror`; the score is the value itself.
    SquaredError,
}

impl Objective {
    fn name(self) -> &'static str {
        match self {
            Objective::Logistic => "binary:logistic",
            Objective::SquaredError => "reg:squarederror",
        }
    }
}

/// Trees with the score that they start from.
#[derive(Clone, Debug, PartialEq)]
pub struct TreeModel {
    pub objective: Objective,
    /// A probability for `Logistic`.
    pub base_score: f32,
    pub trees: Trees,
}

impl TreeModel {
    /// The score without any tree.
    pub fn start(&self) -> f64 {
        match self.objective {
            Objective::Logistic => logit(f64::from(self.base_score)),
            Objective::SquaredError => f64::from(self.base_score),
        }
    }

    pub fn score(&self, row: &[f32]) -> f64 {
        self.trees.sum(self.start(), row)
    }

    /// Bit for bit [`TreeModel::score`] of each row; `rows` is row-major.
    pub fn block_scores(&self, rows: &[f32], columns: usize) -> Vec<f64> {
        let mut sums = vec![self.start(); rows.len() / columns];
        self.trees.add_sums(rows, columns, &mut sums);
        sums
    }

    /// Adds path contributions times `scale`; returns the bias.
    pub fn explain(&self, row: &[f32], scale: f64, contributions: &mut [f64]) -> f64 {
        scale * self.start() + self.trees.explain(row, scale, contributions)
    }
}

/// Why a model file cannot be used.
#[derive(Debug, PartialEq, thiserror::Error)]
pub enum LoadError {
    #[error("{file} is missing in the model")]
    Missing { file: &'static str },
    #[error("{file} is not a model file of the expected form: {reason}")]
    Json { file: &'static str, reason: String },
    #[error("{file} was fitted on other columns: column {} is {found}, expected {expected}; train again with this configuration or use the one the model was trained with", index + 1)]
    Column {
        file: &'static str,
        index: usize,
        found: String,
        expected: String,
    },
    #[error("{file}: {reason}")]
    Unsupported { file: &'static str, reason: String },
    #[error("{file}, tree {tree}: {reason}; the file is damaged")]
    Tree {
        file: &'static str,
        tree: usize,
        reason: String,
    },
}

/// Compares column names; names the first difference.
pub fn check_columns(
    file: &'static str,
    found: &[String],
    expected: &[String],
) -> Result<(), LoadError> {
    let name = |names: &[String], index: usize| {
        names
            .get(index)
            .map_or("absent".to_owned(), |name| format!("`{name}`"))
    };
    match (0..found.len().max(expected.len()))
        .find(|index| found.get(*index) != expected.get(*index))
    {
        None => Ok(()),
        Some(index) => Err(LoadError::Column {
            file,
            index,
            found: name(found, index),
            expected: name(expected, index),
        }),
    }
}

#[derive(Serialize, Deserialize)]
struct Document {
    learner: Learner,
    version: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct Learner {
    #[serde(default)]
    attributes: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    feature_names: Vec<String>,
    #[serde(default)]
    feature_types: Vec<String>,
    gradient_booster: Booster,
    learner_model_param: LearnerParam,
    objective: ObjectiveParam,
}

#[derive(Serialize, Deserialize)]
struct Booster {
    model: Model,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Model {
    gbtree_model_param: ModelParam,
    #[serde(default)]
    iteration_indptr: Vec<usize>,
    tree_info: Vec<i64>,
    trees: Vec<Tree>,
}

#[derive(Serialize, Deserialize)]
struct ModelParam {
    num_parallel_tree: String,
    num_trees: String,
}

#[derive(Serialize, Deserialize)]
struct LearnerParam {
    base_score: String,
    #[serde(default)]
    boost_from_average: String,
    #[serde(default)]
    num_class: String,
    num_feature: String,
    #[serde(default)]
    num_target: String,
}

#[derive(Serialize, Deserialize)]
struct ObjectiveParam {
    name: String,
    reg_loss_param: LossParam,
}

#[derive(Serialize, Deserialize)]
struct LossParam {
    scale_pos_weight: String,
}

#[derive(Default, Serialize, Deserialize)]
struct Tree {
    #[serde(default)]
    base_weights: Vec<f32>,
    #[serde(default)]
    categories: Vec<i64>,
    #[serde(default)]
    categories_nodes: Vec<i64>,
    #[serde(default)]
    categories_segments: Vec<i64>,
    #[serde(default)]
    categories_sizes: Vec<i64>,
    default_left: Vec<Flag>,
    id: usize,
    left_children: Vec<i64>,
    loss_changes: Vec<f32>,
    parents: Vec<i64>,
    right_children: Vec<i64>,
    split_conditions: Vec<f32>,
    split_indices: Vec<usize>,
    #[serde(default)]
    split_type: Vec<u8>,
    sum_hessian: Vec<f32>,
    tree_param: TreeParam,
}

#[derive(Default, Serialize, Deserialize)]
struct TreeParam {
    num_deleted: String,
    num_feature: String,
    num_nodes: String,
    size_leaf_vector: String,
}

/// 0 or 1; older XGBoost wrote false or true.
struct Flag(bool);

impl Serialize for Flag {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_u8(u8::from(self.0))
    }
}

impl<'de> Deserialize<'de> for Flag {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct FlagVisitor;
        impl Visitor<'_> for FlagVisitor {
            type Value = Flag;
            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("0, 1, false or true")
            }
            fn visit_bool<E>(self, value: bool) -> Result<Flag, E> {
                Ok(Flag(value))
            }
            fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Flag, E> {
                match value {
                    0 | 1 => Ok(Flag(value == 1)),
                    _ => Err(E::custom(format!("{value} is neither 0 nor 1"))),
                }
            }
        }
        deserializer.deserialize_any(FlagVisitor)
    }
}

/// Trees of squared error are written as one round of parallel trees, the others as one round each.
pub fn write(model: &TreeModel, names: &[String]) -> Vec<u8> {
    let trees = &model.trees;
    let count = trees.roots.len();
    let parallel = match model.objective {
        Objective::Logistic => 1,
        Objective::SquaredError => count.max(1),
    };
    let document = Document {
        learner: Learner {
            attributes: serde_json::Map::new(),
            feature_names: names.to_vec(),
            feature_types: Vec::new(),
            gradient_booster: Booster {
                model: Model {
                    gbtree_model_param: ModelParam {
                        num_parallel_tree: parallel.to_string(),
                        num_trees: count.to_string(),
                    },
                    iteration_indptr: (0..=count).step_by(parallel).collect(),
                    tree_info: vec![0; count],
                    trees: (0..count)
                        .map(|index| to_tree(trees, index, names.len()))
                        .collect(),
                },
                name: "gbtree".to_owned(),
            },
            learner_model_param: LearnerParam {
                base_score: model.base_score.to_string(),
                boost_from_average: "0".to_owned(),
                num_class: "0".to_owned(),
                num_feature: names.len().to_string(),
                num_target: "1".to_owned(),
            },
            objective: ObjectiveParam {
                name: model.objective.name().to_owned(),
                reg_loss_param: LossParam {
                    scale_pos_weight: "1".to_owned(),
                },
            },
        },
        version: vec![2, 1, 4],
    };
    serde_json::to_vec(&document)
        .expect("the document has string keys only and cannot fail to serialise")
}

fn to_tree(trees: &Trees, index: usize, columns: usize) -> Tree {
    let span = trees.span(index);
    let nodes = &trees.nodes[span.clone()];
    let mut tree = Tree {
        base_weights: trees.values[span.clone()].to_vec(),
        default_left: nodes
            .iter()
            .map(|node| Flag(!node.is_leaf() && node.default_left()))
            .collect(),
        id: index,
        left_children: vec![-1; nodes.len()],
        loss_changes: trees.gains[span.clone()].to_vec(),
        parents: vec![NO_NODE; nodes.len()],
        right_children: vec![-1; nodes.len()],
        split_conditions: nodes.iter().map(|node| node.threshold).collect(),
        split_indices: nodes.iter().map(|node| node.column()).collect(),
        split_type: vec![0; nodes.len()],
        sum_hessian: trees.covers[span.clone()].to_vec(),
        tree_param: TreeParam {
            num_deleted: "0".to_owned(),
            num_feature: columns.to_string(),
            num_nodes: nodes.len().to_string(),
            size_leaf_vector: "1".to_owned(),
        },
        ..Tree::default()
    };
    for at in (0..nodes.len()).filter(|at| !nodes[*at].is_leaf()) {
        let left = trees.left(span.start + at) - span.start;
        (tree.left_children[at], tree.right_children[at]) = (left as i64, left as i64 + 1);
        (tree.parents[left], tree.parents[left + 1]) = (at as i64, at as i64);
    }
    tree
}

/// Reads a model that XGBoost or `write` made and checks all that scoring relies on.
pub fn read(
    file: &'static str,
    bytes: &[u8],
    objective: Objective,
    names: &[String],
) -> Result<TreeModel, LoadError> {
    let document: Document = serde_json::from_slice(bytes).map_err(|error| LoadError::Json {
        file,
        reason: error.to_string(),
    })?;
    let unsupported = |reason: String| Err(LoadError::Unsupported { file, reason });
    let Learner {
        feature_names,
        gradient_booster,
        learner_model_param: param,
        objective: found,
        ..
    } = document.learner;
    if found.name != objective.name() {
        return unsupported(format!(
            "its objective is {}, expected {}",
            found.name,
            objective.name()
        ));
    }
    if gradient_booster.name != "gbtree" {
        return unsupported(format!(
            "its booster is {}, expected gbtree",
            gradient_booster.name
        ));
    }
    if !["", "0", "1"].contains(&param.num_class.as_str())
        || !["", "0", "1"].contains(&param.num_target.as_str())
    {
        return unsupported(format!(
            "it has {} classes and {} targets, expected one probability",
            param.num_class, param.num_target
        ));
    }
    check_columns(file, &feature_names, names)?;
    if param.num_feature != names.len().to_string() {
        return unsupported(format!(
            "num_feature is {}, but it names {} columns",
            param.num_feature,
            names.len()
        ));
    }
    if names.len() > MAX_COLUMNS {
        return unsupported(format!(
            "it has {} columns, at most {MAX_COLUMNS} are supported",
            names.len()
        ));
    }
    // XGBoost 3 writes a list.
    let base_score = param
        .base_score
        .trim_matches(['[', ']'])
        .parse::<f32>()
        .ok()
        .filter(|base| match objective {
            Objective::Logistic => 0.0 < *base && *base < 1.0,
            Objective::SquaredError => base.is_finite(),
        });
    let Some(base_score) = base_score else {
        return unsupported(format!(
            "base_score `{}` is not a usable number",
            param.base_score
        ));
    };
    let mut trees = Trees::default();
    for (index, tree) in gradient_booster.model.trees.iter().enumerate() {
        from_tree(tree, names.len(), &mut trees).map_err(|reason| LoadError::Tree {
            file,
            tree: index,
            reason,
        })?;
    }
    Ok(TreeModel {
        objective,
        base_score,
        trees,
    })
}

/// Walks from the root, so nodes that it does not reach (pruned ones) are left out.
fn from_tree(tree: &Tree, columns: usize, trees: &mut Trees) -> Result<(), String> {
    let count = tree.left_children.len();
    let sizes = [
        ("right_children", tree.right_children.len()),
        ("split_indices", tree.split_indices.len()),
        ("split_conditions", tree.split_conditions.len()),
        ("default_left", tree.default_left.len()),
        ("sum_hessian", tree.sum_hessian.len()),
        ("loss_changes", tree.loss_changes.len()),
    ];
    if let Some((name, size)) = sizes.iter().find(|(_, size)| *size != count) {
        return Err(format!(
            "{name} has {size} entries, left_children has {count}"
        ));
    }
    if !(1..MAX_NODES).contains(&count) {
        return Err(format!(
            "it has {count} nodes, expected 1 to {}",
            MAX_NODES - 1
        ));
    }
    if tree.split_type.iter().any(|kind| *kind != 0) {
        return Err("it splits on categories, which are not supported".to_owned());
    }
    let root = trees.plant();
    let mut seen = vec![false; count];
    let mut stack = vec![(root, 0)];
    while let Some((node, at)) = stack.pop() {
        if std::mem::replace(&mut seen[at], true) {
            return Err(format!("node {at} is reached twice"));
        }
        let (value, cover) = (tree.split_conditions[at], tree.sum_hessian[at]);
        if !value.is_finite()
            || !cover.is_finite()
            || cover < 0.0
            || !tree.loss_changes[at].is_finite()
        {
            return Err(format!(
                "node {at} has threshold or value {value}, cover {cover}, gain {}",
                tree.loss_changes[at]
            ));
        }
        let child = |id: i64| usize::try_from(id).ok().filter(|id| *id < count);
        match (tree.left_children[at], tree.right_children[at]) {
            (-1, -1) => trees.set_leaf(node, value, cover),
            (left, right) => {
                let (Some(left), Some(right)) = (child(left), child(right)) else {
                    return Err(format!(
                        "node {at} has children {left} and {right} of {count} nodes"
                    ));
                };
                let column = tree.split_indices[at];
                if column >= columns {
                    return Err(format!("node {at} splits on column {column} of {columns}"));
                }
                let split = Split {
                    column,
                    threshold: value,
                    default_left: tree.default_left[at].0,
                    gain: tree.loss_changes[at],
                };
                // A loop would end here at the latest.
                if !trees.has_room() {
                    return Err("its nodes form a loop".to_owned());
                }
                let place = trees.set_split(node, split, cover);
                stack.push((place + 1, right));
                stack.push((place, left));
            }
        }
    }
    trees.fill_values(root);
    Ok(())
}
