//! Tree members as XGBoost's JSON model: what Python's xgboost loads and scores the same.

use std::fmt;
use std::str::FromStr;

use serde::de::{Deserializer, Error as _, Visitor};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::logit;
use super::tree::{MAX_COLUMNS, MAX_NODES, Split, Trees};

/// Parent of a root.
const NO_NODE: i32 = i32::MAX;

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

/// What a model is, whatever its kind: other kinds have another form.
#[derive(Deserialize)]
struct Kind {
    learner: KindLearner,
}

#[derive(Deserialize)]
struct KindLearner {
    gradient_booster: Name,
    objective: Name,
}

#[derive(Deserialize)]
struct Name {
    name: String,
}

/// With trees of a form of their own: read one by one, so that no two are in memory in all their parts.
#[derive(Serialize, Deserialize)]
struct Document<T> {
    learner: Learner<T>,
    version: Vec<u32>,
}

#[derive(Serialize, Deserialize)]
struct Learner<T> {
    #[serde(default)]
    attributes: serde_json::Map<String, serde_json::Value>,
    #[serde(default)]
    feature_names: Vec<String>,
    #[serde(default)]
    feature_types: Vec<String>,
    gradient_booster: Booster<T>,
    learner_model_param: LearnerParam,
    objective: ObjectiveParam,
}

#[derive(Serialize, Deserialize)]
struct Booster<T> {
    model: Model<T>,
    name: String,
}

#[derive(Serialize, Deserialize)]
struct Model<T> {
    gbtree_model_param: ModelParam,
    #[serde(default)]
    iteration_indptr: Vec<usize>,
    tree_info: Vec<i64>,
    trees: Vec<T>,
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

/// Parsed as a text at once: most of the time to load a model goes into its numbers.
fn numbers<'de, D: Deserializer<'de>, T: FromStr>(deserializer: D) -> Result<Vec<T>, D::Error> {
    let text = <&RawValue>::deserialize(deserializer)?.get();
    let inner = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let inner = inner.ok_or_else(|| D::Error::custom("expected an array of numbers"))?;
    if inner.trim().is_empty() {
        return Ok(Vec::new());
    }
    let parsed = inner.split(',').map(|number| {
        let number = number.trim();
        number
            .parse()
            .map_err(|_| D::Error::custom(format!("{number} is not such a number")))
    });
    parsed.collect()
}

fn finite<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<f32>, D::Error> {
    let parsed = numbers(deserializer)?;
    match parsed.iter().find(|number: &&f32| !number.is_finite()) {
        Some(_) => Err(D::Error::custom("number out of range")),
        None => Ok(parsed),
    }
}

#[derive(Default, Serialize, Deserialize)]
struct Tree {
    #[serde(skip_deserializing)]
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
    #[serde(deserialize_with = "numbers")]
    left_children: Vec<i32>,
    #[serde(deserialize_with = "finite")]
    loss_changes: Vec<f32>,
    #[serde(skip_deserializing)]
    parents: Vec<i32>,
    #[serde(deserialize_with = "numbers")]
    right_children: Vec<i32>,
    #[serde(deserialize_with = "finite")]
    split_conditions: Vec<f32>,
    #[serde(deserialize_with = "numbers")]
    split_indices: Vec<u32>,
    #[serde(default, deserialize_with = "numbers")]
    split_type: Vec<u8>,
    #[serde(deserialize_with = "finite")]
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
        split_indices: nodes.iter().map(|node| node.column() as u32).collect(),
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
        (tree.left_children[at], tree.right_children[at]) = (left as i32, left as i32 + 1);
        (tree.parents[left], tree.parents[left + 1]) = (at as i32, at as i32);
    }
    tree
}

/// Reads what `write` wrote and checks all that scoring relies on.
pub fn read(
    file: &'static str,
    bytes: &[u8],
    objective: Objective,
    names: &[String],
) -> Result<TreeModel, LoadError> {
    let learner = parse(file, bytes, &[objective.name()])?;
    check_columns(file, &learner.feature_names, names)?;
    let columns: Vec<usize> = (0..names.len()).collect();
    build(file, &learner, objective, &columns)
}

const IMPORTED: &str = "the XGBoost model";
/// Log-odds that no leaf of a sensible model adds.
const MAX_LEAF: f32 = 1000.0;

/// Reads a model of a failure's probability that XGBoost trained on the features `names`, in whatever order.
pub fn import(bytes: &[u8], names: &[String]) -> Result<TreeModel, LoadError> {
    let file = IMPORTED;
    let unsupported = |reason: String| Err(LoadError::Unsupported { file, reason });
    if bytes.first() == Some(&b'{') && bytes.get(1).is_some_and(u8::is_ascii_alphabetic) {
        return unsupported(
            "it is in XGBoost's binary format; save it by `booster.save_model(\"model.json\")`"
                .to_owned(),
        );
    }
    // Both are the logistic function of the sum.
    let learner = parse(file, bytes, &["binary:logistic", "reg:logistic"])?;
    let columns = places(&learner.feature_names, names)?;
    let model = build(file, &learner, Objective::Logistic, &columns)?;
    if model.trees.roots.is_empty() {
        return unsupported("it has no trees".to_owned());
    }
    let leaves = model.trees.nodes.iter().filter(|node| node.is_leaf());
    match leaves
        .map(|leaf| leaf.threshold)
        .find(|value| value.abs() > MAX_LEAF)
    {
        None => Ok(model),
        Some(value) => unsupported(format!(
            "a leaf adds {value} to the log-odds, where {MAX_LEAF} is more than any sensible one does; train again"
        )),
    }
}

/// Where each feature of a foreign model stands in `names`; they must be the same ones.
fn places(found: &[String], names: &[String]) -> Result<Vec<usize>, LoadError> {
    let differ = |what: String| {
        let reason = format!(
            "{what}; train it on the feature columns, with their names, that `forewarn dataset export` writes with this configuration"
        );
        Err(LoadError::Unsupported {
            file: IMPORTED,
            reason,
        })
    };
    if found.is_empty() {
        return differ("it does not name its features".to_owned());
    }
    let mut places = Vec::new();
    for name in found {
        match names.iter().position(|own| own == name) {
            Some(place) if places.contains(&place) => {
                return differ(format!("it names the feature `{name}` twice"));
            }
            Some(place) => places.push(place),
            None => {
                return differ(format!(
                    "it reads the feature `{name}`, which this configuration does not have"
                ));
            }
        }
    }
    match names.iter().find(|name| !found.contains(name)) {
        None => Ok(places),
        Some(name) => differ(format!(
            "it lacks the feature `{name}`: it has {} of {}",
            found.len(),
            names.len()
        )),
    }
}

fn parse<'a>(
    file: &'static str,
    bytes: &'a [u8],
    objectives: &[&str],
) -> Result<Learner<&'a RawValue>, LoadError> {
    let json = |error: serde_json::Error| LoadError::Json {
        file,
        reason: error.to_string(),
    };
    let unsupported = |reason: String| Err(LoadError::Unsupported { file, reason });
    let parsed = serde_json::from_slice::<Document<&RawValue>>(bytes);
    let (objective, booster) = match &parsed {
        Ok(Document { learner, .. }) => (
            learner.objective.name.clone(),
            learner.gradient_booster.name.clone(),
        ),
        Err(_) => {
            let Kind { learner } = serde_json::from_slice(bytes).map_err(json)?;
            (learner.objective.name, learner.gradient_booster.name)
        }
    };
    if !objectives.contains(&objective.as_str()) {
        return unsupported(format!(
            "its objective is {objective}, expected {}",
            objectives.join(" or ")
        ));
    }
    if booster != "gbtree" {
        return unsupported(format!("its booster is {booster}, expected gbtree"));
    }
    Ok(parsed.map_err(json)?.learner)
}

/// `columns` says where each of the model's columns stands in the rows that are scored.
fn build(
    file: &'static str,
    learner: &Learner<&RawValue>,
    objective: Objective,
    columns: &[usize],
) -> Result<TreeModel, LoadError> {
    let param = &learner.learner_model_param;
    let unsupported = |reason: String| Err(LoadError::Unsupported { file, reason });
    if !["", "0", "1"].contains(&param.num_class.as_str())
        || !["", "0", "1"].contains(&param.num_target.as_str())
    {
        return unsupported(format!(
            "it has {} classes and {} targets, expected one probability",
            param.num_class, param.num_target
        ));
    }
    if param.num_feature != columns.len().to_string() {
        return unsupported(format!(
            "num_feature is {}, but it names {} columns",
            param.num_feature,
            columns.len()
        ));
    }
    if columns.len() > MAX_COLUMNS {
        return unsupported(format!(
            "it has {} columns, at most {MAX_COLUMNS} are supported",
            columns.len()
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
    for (index, tree) in learner.gradient_booster.model.trees.iter().enumerate() {
        let parsed = serde_json::from_str::<Tree>(tree.get()).map_err(|error| error.to_string());
        let added = parsed.and_then(|tree| from_tree(&tree, columns, &mut trees));
        added.map_err(|reason| LoadError::Tree {
            file,
            tree: index,
            reason,
        })?;
    }
    trees.shrink();
    Ok(TreeModel {
        objective,
        base_score,
        trees,
    })
}

/// Walks from the root, so nodes that it does not reach (pruned ones) are left out.
fn from_tree(tree: &Tree, columns: &[usize], trees: &mut Trees) -> Result<(), String> {
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
        let child = |id: i32| usize::try_from(id).ok().filter(|id| *id < count);
        match (tree.left_children[at], tree.right_children[at]) {
            (-1, -1) => trees.set_leaf(node, value, cover),
            (left, right) => {
                let (Some(left), Some(right)) = (child(left), child(right)) else {
                    return Err(format!(
                        "node {at} has children {left} and {right} of {count} nodes"
                    ));
                };
                let Some(&column) = columns.get(tree.split_indices[at] as usize) else {
                    return Err(format!(
                        "node {at} splits on column {} of {}",
                        tree.split_indices[at],
                        columns.len()
                    ));
                };
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

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::*;

    /// Made by XGBoost itself; see make.py there.
    fn fixture(name: &str) -> PathBuf {
        Path::new("tests/fixtures/xgboost").join(name)
    }

    fn names(text: &str) -> Vec<String> {
        text.split(' ').map(str::to_owned).collect()
    }

    #[derive(Deserialize)]
    struct Made {
        model: serde_json::Value,
        rows: Vec<Vec<Option<f32>>>,
        margins: Vec<f64>,
    }

    fn made(version: &str) -> Made {
        let text = std::fs::read(fixture(&format!("{version}.json"))).unwrap();
        serde_json::from_slice(&text).unwrap()
    }

    #[test]
    fn models_of_xgboost_score_as_xgboost_does() {
        for version in ["1.7.6", "2.1.4", "3.2.0"] {
            let Made {
                model,
                rows,
                margins,
            } = made(version);
            let bytes = serde_json::to_vec(&model).unwrap();
            // In another order too.
            for (order, places) in [("a b c d", [0, 1, 2, 3]), ("d a c b", [3, 0, 2, 1])] {
                let own = import(&bytes, &names(order)).unwrap();
                let again = write(&own, &names(order));
                let again = read("again", &again, Objective::Logistic, &names(order)).unwrap();
                assert_eq!(again, own);
                for (row, margin) in rows.iter().zip(&margins) {
                    let row = places.map(|place| row[place].unwrap_or(f32::NAN));
                    let score = own.score(&row);
                    // XGBoost adds in single precision.
                    assert!((score - margin).abs() < 1e-6, "{score} {margin}");
                }
            }
        }
    }

    #[test]
    fn what_is_no_model_of_these_features_is_refused_in_words() {
        let known = names("a b c d");
        let refusal =
            |bytes: &[u8], names: &[String]| import(bytes, names).unwrap_err().to_string();
        for (file, expected) in [
            ("dart.json", "its booster is dart, expected gbtree"),
            ("linear.json", "its booster is gblinear"),
            (
                "classes.json",
                "its objective is multi:softprob, expected binary:logistic or reg:logistic",
            ),
            ("regression.json", "its objective is reg:squarederror"),
            (
                "binary.ubj",
                "save it by `booster.save_model(\"model.json\")`",
            ),
            ("unnamed.json", "it does not name its features; train it on"),
        ] {
            let bytes = std::fs::read(fixture(&format!("refused-{file}"))).unwrap();
            let message = refusal(&bytes, &known);
            assert!(message.contains(expected), "{file}: {message}");
        }
        let bytes = std::fs::read(fixture("refused-categories.json")).unwrap();
        let message = refusal(&bytes, &names("a"));
        assert!(
            message.contains("tree 0: it splits on categories"),
            "{message}"
        );

        let text = made("3.2.0").model.to_string();
        for (names, expected) in [
            (
                names("a b c"),
                "it reads the feature `d`, which this configuration does not have",
            ),
            (
                names("a b c d e"),
                "it lacks the feature `e`: it has 4 of 5",
            ),
            (names("a b c x"), "it reads the feature `d`"),
        ] {
            let message = refusal(text.as_bytes(), &names);
            assert!(message.contains(expected), "{message}");
        }
        let first = |list: &str| {
            let from = text.find(list).unwrap() + list.len();
            (from, from + text[from..].find([',', ']']).unwrap())
        };
        let put = |list: &str, value: &str| {
            let (from, until) = first(list);
            format!("{}{value}{}", &text[..from], &text[until..])
        };
        for (changed, expected) in [
            (
                text.replace("\"b\"", "\"a\""),
                "it names the feature `a` twice",
            ),
            (text[..text.len() / 2].to_owned(), "EOF while parsing"),
            ("model".to_owned(), "not a model file"),
            (String::new(), "EOF while parsing"),
            (put("\"split_conditions\":[", "NaN"), "expected value"),
            (put("\"split_conditions\":[", "1e39"), "number out of range"),
            (put("\"left_children\":[", "0"), "node 0 is reached twice"),
            (
                put("\"base_score\":\"[", "0"),
                "base_score `[0]` is not a usable number",
            ),
            (
                text.replace("\"trees\":[", "\"trees\":[],\"others\":["),
                "it has no trees",
            ),
        ] {
            let message = refusal(changed.as_bytes(), &known);
            assert!(message.contains(expected), "{message}");
        }
        let mut huge: serde_json::Value = serde_json::from_str(&text).unwrap();
        let tree = &mut huge["learner"]["gradient_booster"]["model"]["trees"][0];
        let leaf = tree["left_children"]
            .as_array()
            .unwrap()
            .iter()
            .position(|x| *x == -1);
        tree["split_conditions"][leaf.unwrap()] = 3e38.into();
        let message = refusal(huge.to_string().as_bytes(), &known);
        assert!(
            message.contains("to the log-odds, where 1000 is more"),
            "{message}"
        );
    }
}
