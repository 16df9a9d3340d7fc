import CPUBackend
import JSON

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// What `nibble bench attention` found, in the forms it prints.
struct BenchAttentionReport {
  struct Setting {
    let kind: String
    let phase: String
    let queryHeads: Int
    let kvHeads: Int
    let batch: Int
    let newTokens: Int
    let threads: Int
    let level: String
    let rounds: Int
  }

  struct Row {
    let recipe: String
    let precision: AttentionPrecision
    let context: Int
    /// Cache bytes of one layer.
    let bytes: Int
    /// Floating-point operations of one layer.
    let operations: Double
    /// Seconds of one layer.
    let best: Double
    let median: Double

    var name: String { precision == .full ? recipe : "\(recipe), \(precision.rawValue)" }
  }

  let setting: Setting
  var rows: [Row] = []
  /// Bytes per second, measured between the rows.
  var readBandwidth = 0.0

  init(setting: Setting) { self.setting = setting }

  private func nanoseconds(_ seconds: Double, _ row: Row) -> Double {
    seconds * 1e9 / Double(row.context * setting.kvHeads * setting.batch * setting.newTokens)
  }

  private var title: String {
    "\(setting.kind) \(setting.phase), \(setting.queryHeads) query heads, \(setting.kvHeads) KV heads, batch \(setting.batch)"
      + (setting.newTokens > 1 ? ", \(setting.newTokens) new tokens" : "")
      + "; \(setting.threads) threads, \(setting.level), best of \(setting.rounds) rounds; "
      + "read bandwidth \((readBandwidth / 1e9).decimals(1)) GB/s"
  }

  private var header: [String] { ["context", "recipe", "ns", "median", "GB/s", "share", "GFLOP/s", "ms a layer"] }

  private func cells(_ row: Row) -> [String] {
    let rate = Double(row.bytes) / row.best
    return [
      String(row.context), row.name, nanoseconds(row.best, row).decimals(2), nanoseconds(row.median, row).decimals(2),
      (rate / 1e9).decimals(1), (100 * rate / readBandwidth).decimals(0) + "%",
      (row.operations / row.best / 1e9).decimals(0), (row.best * 1e3).decimals(3),
    ]
  }

  var text: String {
    let table = [header] + rows.map(cells)
    let widths = header.indices.map { column in table.map { $0[column].count }.max() ?? 0 }
    let lines = table.map { cells in
      zip(cells, widths).map { $0.leftPadded(to: $1) }.joined(separator: "  ")
    }
    return title + "\n" + lines.joined(separator: "\n") + "\n"
  }

  var markdown: String {
    let lines =
      ["| " + header.joined(separator: " | ") + " |", "|" + String(repeating: "---|", count: header.count)]
      + rows.map { "| " + cells($0).joined(separator: " | ") + " |" }
    return title + "\n\n" + lines.joined(separator: "\n") + "\n"
  }

  var json: String {
    let values = rows.map { row -> JSONValue in
      [
        "recipe": .string(row.recipe), "attention_precision": .string(row.precision.rawValue),
        "context": .integer(Int64(row.context)),
        "cache_bytes": .integer(Int64(row.bytes)), "seconds_best": .number(row.best),
        "seconds_median": .number(row.median), "ns_per_token_and_kv_head": .number(nanoseconds(row.best, row)),
        "share_of_read_bandwidth": .number(Double(row.bytes) / row.best / readBandwidth),
        "operations_per_second": .number(row.operations / row.best),
      ]
    }
    let result: JSONValue = [
      "kind": .string(setting.kind), "phase": .string(setting.phase),
      "query_heads": .integer(Int64(setting.queryHeads)), "kv_heads": .integer(Int64(setting.kvHeads)),
      "batch": .integer(Int64(setting.batch)), "new_tokens": .integer(Int64(setting.newTokens)),
      "threads": .integer(Int64(setting.threads)), "simd_level": .string(setting.level),
      "read_bytes_per_second": .number(readBandwidth), "rows": .array(values),
    ]
    return result.serialized(pretty: true)
  }

  /// Milliseconds of a layer against the context, both logarithmic, a line per recipe.
  var svg: String {
    let (width, height, margin) = (640.0, 400.0, 60.0)
    let contexts = rows.map { log2(Double($0.context)) }
    let times = rows.map { log10($0.best * 1e3) }
    guard let left = contexts.min(), let right = contexts.max(), let low = times.min()?.rounded(.down),
      let high = times.max()?.rounded(.up)
    else { return "" }
    func x(_ context: Int) -> Double {
      margin + (log2(Double(context)) - left) / max(right - left, 1e-9) * (width - 2.5 * margin)
    }
    func y(_ value: Double) -> Double {
      height - margin - (value - low) / max(high - low, 1e-9) * (height - 1.6 * margin)
    }
    var parts = [
      #"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 \#(Int(width)) \#(Int(height))" font-family="sans-serif" font-size="12">"#,
      #"<rect width="100%" height="100%" fill="white"/>"#,
      #"<text x="\#(Int(margin))" y="18">Attention, \#(setting.kind) \#(setting.phase), \#(setting.threads) threads: ms a layer against context</text>"#,
    ]
    for exponent in stride(from: low, through: high, by: 1) {
      let line = y(exponent).decimals(1)
      parts.append(
        #"<path d="M\#(Int(margin)) \#(line)H\#(Int(width - 1.5 * margin))" stroke="silver"/>"#
          + #"<text x="\#(Int(margin) - 8)" y="\#(line)" text-anchor="end">\#(pow(10, exponent).decimals(exponent < 0 ? Int(-exponent) : 0))</text>"#
      )
    }
    for context in Set(rows.map(\.context)).sorted() {
      parts.append(
        #"<text x="\#(x(context).decimals(1))" y="\#(Int(height - margin) + 18)" text-anchor="middle">\#(context)</text>"#
      )
    }
    let colors = ["#0a7", "#d62", "#35c", "#a3a", "#777", "#b80", "#088"]
    var names: [String] = []
    for row in rows where !names.contains(row.name) { names.append(row.name) }
    for (index, name) in names.enumerated() {
      let color = colors[index % colors.count]
      let line = rows.filter { $0.name == name }.sorted { $0.context < $1.context }
      let points = line.map { "\(x($0.context).decimals(1)),\(y(log10($0.best * 1e3)).decimals(1))" }
      parts.append(
        #"<polyline points="\#(points.joined(separator: " "))" fill="none" stroke="\#(color)" stroke-width="2"/>"#)
      if let last = line.last {
        parts.append(
          #"<text x="\#((x(last.context) + 6).decimals(1))" y="\#((y(log10(last.best * 1e3)) + 4).decimals(1))" fill="\#(color)">\#(name)</text>"#
        )
      }
    }
    return parts.joined(separator: "\n") + "\n</svg>\n"
  }
}
