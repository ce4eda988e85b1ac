//! Functions that users write in SQL: calls are replaced by the function's body before the planner sees them.
//!
//! ```text
//!   CREATE FUNCTION net(price numeric, rate numeric) RETURNS numeric RETURN price / (1 + rate)
//!   SELECT net(amount, 0.2) FROM orders
//!     -> SELECT CAST(CAST(amount AS numeric) / (1 + CAST(0.2 AS numeric)) AS numeric) FROM orders
//! ```
//!
//! So a function costs nothing when it runs, and is maintained incrementally wherever expressions are. Bodies are
//! expressions over the arguments; they may call other functions.
//!
//! Rule: what a query means depends only on its text and the catalog, so the functions come with the session state.

use crate::walk::walk;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, PoisonError};

use arrow::datatypes::DataType;
use datafusion::sql::sqlparser::ast::{
    self, Expr, FunctionArg, FunctionArgExpr, FunctionArguments, ObjectName, VisitorMut,
};

use crate::catalog::RelationId;
use crate::{Result, SqlError, SqlState};

/// A scalar function.
#[derive(Clone, Debug, PartialEq)]
pub struct FunctionDef {
    pub id: RelationId,
    pub name: String,
    pub arguments: Vec<Argument>,
    /// Its name is empty.
    pub returns: Argument,
    /// The expression, as it was written.
    pub body: String,
    /// NULL when an argument is NULL.
    pub strict: bool,
    /// Functions that the body calls.
    pub calls: Vec<String>,
    /// The statement as it was written.
    pub sql: String,
}

#[derive(Clone, Debug, PartialEq)]
pub struct Argument {
    /// Empty when it is known by its number only.
    pub name: String,
    pub data_type: DataType,
    /// As PostgreSQL prints it.
    pub sql_type: String,
}

/// How large a statement's calls may become, as parts of expressions: `f(x)` that uses x twice doubles with each call
/// around it.
const PARTS_MAX: usize = 50_000;
/// How deep what a call becomes may be nested; planning recurses.
const DEPTH_MAX: usize = 100;

/// The functions of a catalog, and which of them a statement called.
#[derive(Debug, Default)]
pub struct SqlFunctions {
    functions: BTreeMap<String, Arc<FunctionDef>>,
    called: Mutex<BTreeSet<String>>,
}

impl SqlFunctions {
    pub fn new(functions: BTreeMap<String, Arc<FunctionDef>>) -> SqlFunctions {
        SqlFunctions { functions, called: Mutex::default() }
    }

    /// Names of the functions that were called so far, those within others included.
    pub fn called(&self) -> Vec<String> {
        self.called.lock().unwrap_or_else(PoisonError::into_inner).iter().cloned().collect()
    }

    /// Replaces all calls in the statement.
    ///
    /// # Errors
    /// Wrong number of arguments; calls that go round in a circle.
    pub fn expand(&self, statement: &mut ast::Statement) -> Result<()> {
        if self.functions.is_empty() {
            return Ok(());
        }
        let room = Cell::new(PARTS_MAX);
        match walk(statement, &mut Expand { functions: self, within: None, room: &room }) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

struct Expand<'a> {
    functions: &'a SqlFunctions,
    /// The function whose body this is, and those that led to it.
    within: Option<&'a Within<'a>>,
    /// Parts that the statement may still grow by.
    room: &'a Cell<usize>,
}

struct Within<'a> {
    function: &'a str,
    outer: Option<&'a Within<'a>>,
}

impl Expand<'_> {
    fn expand(&mut self, expr: &mut Expr) -> Result<()> {
        let Expr::Function(call) = expr else { return Ok(()) };
        let Some(function) = name_of(&call.name).and_then(|name| self.functions.functions.get(&name)) else {
            return Ok(());
        };
        let mut outer = self.within;
        while let Some(within) = outer {
            if within.function == function.name {
                let message =
                    format!("function \"{}\" calls itself, directly or through others", function.name);
                return Err(SqlError::new(SqlState::InvalidDefinition, message)
                    .with_hint("functions are put in the place of their calls, which has to end"));
            }
            outer = within.outer;
        }
        let mut called = self.functions.called.lock().unwrap_or_else(PoisonError::into_inner);
        called.insert(function.name.clone());
        drop(called);
        *expr = body_of(function, call, self.room)?;
        if Size::of(expr).depth > DEPTH_MAX {
            return Err(too_large(function));
        }
        // The arguments were visited already and hold no calls; the body may.
        let within = Within { function: &function.name, outer: self.within };
        let mut inner = Expand { functions: self.functions, within: Some(&within), room: self.room };
        match walk(expr, &mut inner) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(error) => Err(error),
        }
    }
}

impl VisitorMut for Expand<'_> {
    type Break = SqlError;

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        match self.expand(expr) {
            Ok(()) => ControlFlow::Continue(()),
            Err(error) => ControlFlow::Break(error),
        }
    }
}

fn too_large(function: &FunctionDef) -> SqlError {
    let message = format!("calls of function \"{}\" become too large an expression", function.name);
    SqlError::new(SqlState::ProgramLimitExceeded, message).with_hint(
        "a function stands for its body wherever it is called: call it in a view and read the column",
    )
}

/// Parts of an expression and how deep they are nested.
#[derive(Default)]
struct Size {
    parts: usize,
    depth: usize,
    level: usize,
}

impl Size {
    fn of(expr: &Expr) -> Size {
        let mut size = Size::default();
        let _ = walk(&mut expr.clone(), &mut size);
        size
    }
}

impl VisitorMut for Size {
    type Break = ();

    fn pre_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.parts += 1;
        self.level += 1;
        self.depth = self.depth.max(self.level);
        ControlFlow::Continue(())
    }

    fn post_visit_expr(&mut self, _: &mut Expr) -> ControlFlow<()> {
        self.level -= 1;
        ControlFlow::Continue(())
    }
}

fn name_of(name: &ObjectName) -> Option<String> {
    let parts: Vec<&ast::Ident> = name.0.iter().map(|part| part.as_ident()).collect::<Option<_>>()?;
    let fold = |ident: &ast::Ident| match ident.quote_style {
        Some(_) => ident.value.clone(),
        None => ident.value.to_lowercase(),
    };
    match parts.as_slice() {
        [name] => Some(fold(name)),
        [schema, name] if fold(schema) == crate::DEFAULT_SCHEMA => Some(fold(name)),
        _ => None,
    }
}

/// The body with the call's arguments in it, as one value of the function's type.
fn body_of(function: &FunctionDef, call: &ast::Function, room: &Cell<usize>) -> Result<Expr> {
    let wrong = |message: String| {
        let arguments = function.arguments.iter().map(|a| format!("{} {}", a.name, a.sql_type));
        let arguments = arguments.collect::<Vec<_>>().join(", ");
        SqlError::new(SqlState::UndefinedFunction, message)
            .with_hint(format!("it is defined as {}({arguments})", function.name))
    };
    let given: Vec<&Expr> = match &call.args {
        FunctionArguments::None => Vec::new(),
        FunctionArguments::List(list) if list.clauses.is_empty() && list.duplicate_treatment.is_none() => {
            let expressions = list.args.iter().map(|argument| match argument {
                FunctionArg::Unnamed(FunctionArgExpr::Expr(expr)) => Some(expr),
                _ => None,
            });
            expressions.collect::<Option<_>>().ok_or_else(|| {
                wrong(format!("function \"{}\" takes its arguments by position", function.name))
            })?
        }
        _ => {
            return Err(wrong(format!("function \"{}\" is called in a way it does not know", function.name)));
        }
    };
    if call.over.is_some() || call.filter.is_some() || !call.within_group.is_empty() {
        return Err(wrong(format!(
            "function \"{}\" is neither an aggregate nor a window function",
            function.name
        )));
    }
    if given.len() != function.arguments.len() {
        return Err(wrong(format!(
            "function \"{}\" takes {} arguments, {} were given",
            function.name,
            function.arguments.len(),
            given.len()
        )));
    }
    let values: Vec<Expr> = given
        .iter()
        .zip(&function.arguments)
        .map(|(expr, argument)| cast((*expr).clone(), &argument.sql_type))
        .collect::<Result<_>>()?;
    let mut body = crate::parse_expr(&function.body)?;
    let sizes: Vec<usize> = values.iter().map(|value| Size::of(value).parts).collect();
    take(room, Size::of(&body).parts, function)?;
    let mut substitution = Substitute { function, values: &values, sizes: &sizes, room };
    if let ControlFlow::Break(error) = walk(&mut body, &mut substitution) {
        return Err(error);
    }
    if function.strict && !values.is_empty() {
        take(room, sizes.iter().sum(), function)?;
        let any_null = values
            .iter()
            .map(|value| Expr::IsNull(Box::new(value.clone())))
            .reduce(|left, right| Expr::BinaryOp {
                left: Box::new(left),
                op: ast::BinaryOperator::Or,
                right: Box::new(right),
            })
            .unwrap_or(Expr::Value(ast::Value::Boolean(false).into()));
        let Ok(Expr::Case { case_token, end_token, .. }) = crate::parse_expr("CASE WHEN a THEN b END") else {
            return Err(SqlError::internal("a CASE is parsed as another expression"));
        };
        body = Expr::Case {
            case_token,
            end_token,
            operand: None,
            conditions: vec![ast::CaseWhen {
                condition: any_null,
                result: Expr::Value(ast::Value::Null.into()),
            }],
            else_result: Some(Box::new(body)),
        };
    }
    cast(body, &function.returns.sql_type)
}

fn take(room: &Cell<usize>, parts: usize, function: &FunctionDef) -> Result<()> {
    room.set(room.get().checked_sub(parts).ok_or_else(|| too_large(function))?);
    Ok(())
}

fn cast(expr: Expr, sql_type: &str) -> Result<Expr> {
    match crate::parse_expr(&format!("CAST(NULL AS {sql_type})"))? {
        Expr::Cast { kind, data_type, array, format, .. } => {
            Ok(Expr::Cast { kind, expr: Box::new(expr), data_type, array, format })
        }
        other => Err(SqlError::internal(format!("a cast was read as {other}"))),
    }
}

/// Puts arguments in the place of their names and of `$1`, `$2`, ...
struct Substitute<'a> {
    function: &'a FunctionDef,
    values: &'a [Expr],
    /// Parts of each value.
    sizes: &'a [usize],
    room: &'a Cell<usize>,
}

impl VisitorMut for Substitute<'_> {
    type Break = SqlError;

    fn pre_visit_query(&mut self, _: &mut ast::Query) -> ControlFlow<SqlError> {
        let message = format!("function \"{}\" has a subquery", self.function.name);
        ControlFlow::Break(
            SqlError::unsupported(message).with_hint("functions compute a value from their arguments only"),
        )
    }

    fn post_visit_expr(&mut self, expr: &mut Expr) -> ControlFlow<SqlError> {
        let number = match expr {
            Expr::Identifier(ident) => {
                let name = match ident.quote_style {
                    Some(_) => ident.value.clone(),
                    None => ident.value.to_lowercase(),
                };
                self.function.arguments.iter().position(|argument| argument.name == name)
            }
            // `function_name.argument`
            Expr::CompoundIdentifier(parts) if parts.len() == 2 && parts[0].value == self.function.name => {
                self.function.arguments.iter().position(|argument| argument.name == parts[1].value)
            }
            Expr::Value(value) => match &value.value {
                ast::Value::Placeholder(text) => text
                    .strip_prefix('$')
                    .and_then(|n| n.parse::<usize>().ok())
                    .and_then(|n| n.checked_sub(1)),
                _ => return ControlFlow::Continue(()),
            },
            _ => return ControlFlow::Continue(()),
        };
        match number.and_then(|number| Some((self.values.get(number)?, self.sizes.get(number)?))) {
            Some((value, parts)) => {
                if let Err(error) = take(self.room, *parts, self.function) {
                    return ControlFlow::Break(error);
                }
                *expr = value.clone();
            }
            None => {
                let message = format!("{expr} is no argument of function \"{}\"", self.function.name);
                return ControlFlow::Break(SqlError::new(SqlState::UndefinedColumn, message));
            }
        }
        ControlFlow::Continue(())
    }
}
