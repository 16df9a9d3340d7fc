import KVQuantization

/// One timing for the table at the end.
struct TimingRow {
  /// "decode Hq 64, Hk 4, D 128, 1 x 131,072"
  let load: String
  let recipe: KVRecipe
  let microseconds: Double
  /// Bytes that must be moved, /s.
  let gigabytesPerSecond: Double
  /// Operations, where arithmetic may be what binds.
  var teraflops: Double?
}

/// The table for people: a line a load and recipe, with ratios to nvfp4.
enum ResultTable {
  static func print(_ rows: [TimingRow], yardsticks: Yardsticks, device: String) {
    if rows.isEmpty { return }
    Swift.print("\n\(device): copy \(yardsticks.copy.fixed(0)) GB/s, best read \(yardsticks.read.fixed(0)) GB/s")
    let width = max(8, rows.map(\.load.count).max() ?? 0)
    Swift.print(
      pad("load", width) + "  " + pad("recipe", 15) + right("us", 9) + right("GB/s", 8) + right("of read", 8)
        + right("of copy", 8) + right("x nvfp4", 9))
    var loads: [String] = []
    for row in rows where !loads.contains(row.load) { loads.append(row.load) }
    for load in loads {
      let group = rows.filter { $0.load == load }
      let base = group.first { $0.recipe == .nvfp4 }?.microseconds
      for row in group {
        Swift.print(
          pad(load, width) + "  " + pad(row.recipe.name, 15) + right(row.microseconds.fixed(1), 9)
            + right(row.gigabytesPerSecond.fixed(0), 8) + share(row, of: yardsticks.read)
            + share(row, of: yardsticks.copy)
            + right(base.map { (row.microseconds / $0).fixed(2) } ?? "-", 9)
            + (row.teraflops.map { right($0.fixed(0), 7) + " TFLOP/s" } ?? ""))
      }
      let times = [KVRecipe.nvfp4, .fp8E4M3, .bf16].compactMap { recipe in
        group.first { $0.recipe == recipe }?.microseconds
      }
      if let least = times.first, times.count == 3 {
        let ratios = times.dropFirst().map { ($0 / least).fixed(2) }.joined(separator: " : ")
        Swift.print(pad("", width) + "  nvfp4 : fp8_e4m3 : bf16 = 1 : \(ratios)")
      }
    }
  }

  private static func share(_ row: TimingRow, of bandwidth: Double) -> String {
    right((row.gigabytesPerSecond / bandwidth * 100).fixed(1) + "%", 8)
  }

  private static func pad(_ text: String, _ width: Int) -> String {
    text + String(repeating: " ", count: max(0, width - text.count))
  }

  private static func right(_ text: String, _ width: Int) -> String {
    String(repeating: " ", count: max(0, width - text.count)) + text
  }
}

extension Int {
  /// With a comma at every thousand.
  var grouped: String {
    var digits = Array("\(self)")
    var index = digits.count - 3
    while index > 0 {
      digits.insert(",", at: index)
      index -= 3
    }
    return String(digits)
  }
}
