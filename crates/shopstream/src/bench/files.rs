//! Views over replayable files: the files are the durable source, so nothing is copied into a log first.
//!
//! `shopstream bench files --views w1,w2 --format csv [--workers 2] [--threads 2] [--out DIR] FILE...`

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use arrow::array::RecordBatch;
use arrow::util::display::{ArrayFormatter, FormatOptions};
use connectors::format::csv::CsvOptions;
use connectors::format::json::JsonOptions;
use connectors::source::{FileFormat, FileOptions, ParallelFiles};
use engine::Transient;
use serde_json::json;

use super::{number, option, usage, workloads};
use crate::failure::{Failure, Result};

pub fn run(arguments: &[String]) -> Result {
    let views: Vec<&str> = option(arguments, "--views").unwrap_or("w1").split(',').collect();
    let format = option(arguments, "--format").unwrap_or("csv");
    let workers = number(arguments, "--workers", 2)?;
    let threads = number(arguments, "--threads", 2)?;
    let step_rows = number(arguments, "--step-rows", 131_072)?;
    let files = operands(arguments);
    if files.is_empty() {
        return Err(Failure::usage("bench files needs a file"));
    }
    let sql_failure = |e: sql::SqlError| Failure::failed(e.to_string());
    let mut engine = Transient::new(workers);
    engine.define(workloads::TABLE).map_err(sql_failure)?;
    for view in &views {
        let statement = workloads::create(view).ok_or_else(|| {
            let known: Vec<&str> = workloads::VIEWS.iter().map(|(n, _, _)| *n).collect();
            Failure::usage(format!("unknown view \"{view}\"")).hint(format!("views: {}", known.join(", ")))
        })?;
        engine.define(&statement).map_err(sql_failure)?;
    }
    let schema = engine.table("ub").map(|t| t.input_schema()).expect("it was just created");
    let columns: Vec<usize> = (0..schema.fields().len()).collect();
    let file_format = match format {
        "csv" => FileFormat::Csv(CsvOptions::default()),
        "ndjson" => FileFormat::Ndjson(JsonOptions::default()),
        other => return Err(Failure::usage(format!("format is csv or ndjson, not {other}"))),
    };
    let options = FileOptions { threads, ..Default::default() };
    let started = Instant::now();
    let failure = |e: connectors::Error| Failure::failed(e.to_string());
    let mut source =
        ParallelFiles::open(&files, file_format, &schema, &columns, &options).map_err(failure)?;
    let (mut rows, mut rejected, mut pending) = (0usize, 0usize, 0usize);
    while let Some(batch) = source.next_batch().map_err(failure)? {
        rows += batch.rows.batch.num_rows();
        rejected += batch.rows.rejected.len();
        pending += batch.rows.batch.num_rows();
        engine.feed("ub", batch.rows.batch).map_err(sql_failure)?;
        if pending >= step_rows {
            engine.step().map_err(sql_failure)?;
            pending = 0;
        }
    }
    engine.finish().map_err(sql_failure)?;
    let seconds = started.elapsed().as_secs_f64();
    let results: serde_json::Map<_, _> =
        views.iter().map(|v| (v.to_string(), json!(engine.row_count(v)))).collect();
    if let Some(folder) = option(arguments, "--out") {
        for view in &views {
            write_csv(
                &PathBuf::from(folder).join(format!("{view}.csv")),
                &engine.rows(view).map_err(sql_failure)?,
            )?;
        }
    }
    let report = json!({
        "scenario": "files", "views": views, "format": format, "rows": rows, "rejected": rejected,
        "late": engine.late_rows(), "seconds": seconds, "rows_per_second": (rows as f64 / seconds).round(),
        "cpu_seconds": usage::cpu_seconds(), "peak_memory_mb": usage::peak_memory_mb().round(), "result_rows": results,
    });
    println!("{report}");
    Ok(())
}

/// Arguments that are neither options nor their values.
fn operands(arguments: &[String]) -> Vec<PathBuf> {
    let mut files = Vec::new();
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        if argument.starts_with("--") {
            rest.next();
        } else {
            files.push(PathBuf::from(argument));
        }
    }
    files
}

/// Rows sorted, timestamps as epoch seconds, as the peers write theirs.
fn write_csv(path: &std::path::Path, batches: &[RecordBatch]) -> Result {
    let io = |e: std::io::Error| Failure::io("write", path.display(), &e);
    let mut lines: Vec<String> = Vec::new();
    for batch in batches {
        let columns: Vec<_> = batch
            .columns()
            .iter()
            .map(|c| match c.data_type() {
                arrow::datatypes::DataType::Timestamp(_, _) => {
                    let seconds =
                        engine::operators::microseconds(c).map_err(|e| Failure::failed(e.to_string()))?;
                    let seconds =
                        seconds.unary::<_, arrow::datatypes::Int64Type>(|us| us.div_euclid(1_000_000));
                    Ok(std::sync::Arc::new(seconds) as arrow::array::ArrayRef)
                }
                _ => Ok(Arc::clone(c)),
            })
            .collect::<Result<Vec<_>>>()?;
        let options = FormatOptions::default();
        let formatters = columns
            .iter()
            .map(|c| ArrayFormatter::try_new(c.as_ref(), &options))
            .collect::<std::result::Result<Vec<_>, _>>()
            .map_err(|e| Failure::failed(e.to_string()))?;
        for row in 0..batch.num_rows() {
            lines.push(formatters.iter().map(|f| f.value(row).to_string()).collect::<Vec<_>>().join(","));
        }
    }
    lines.sort();
    let mut file = std::io::BufWriter::new(std::fs::File::create(path).map_err(io)?);
    for line in lines {
        writeln!(file, "{line}").map_err(io)?;
    }
    file.flush().map_err(io)
}
