import KVQuantization

/// What the gate does with scales of each convention, recipe by recipe: a table of docs/kv-cache.md.
enum GateTable {
  static func markdown() -> String {
    let conventions: [KVScaleConvention?] = KVScaleConvention.allCases + [nil]
    var lines = [
      "| recipe | no scales | " + conventions.map { $0?.rawValue ?? "not known" }.joined(separator: " | ") + " |",
      "|---|---|" + conventions.map { _ in "---|" }.joined(),
    ]
    for recipe in KVRecipe.allCases {
      let cells = [cell(recipe, nil)] + conventions.map { cell(recipe, KVScaleGateTests.scales(.both, $0)) }
      lines.append("| `\(recipe.name)` | \(cells.joined(separator: " | ")) |")
    }
    return lines.joined(separator: "\n") + "\n"
  }

  private static func cell(_ recipe: KVRecipe, _ scales: KVScaleSet?) -> String {
    let resolution: KVScaleResolution
    do throws(KVQuantizationError) {
      resolution = try KVScaleGate(key: recipe, value: recipe, layerCount: 3).resolve(scales)
    } catch { return "refused: say --kv-scale-convention" }
    let found = resolution.decisions[0]
    let warning = resolution.warnings.isEmpty ? "" : ", warned"
    switch found.action {
    case .notNeeded: return "-"
    case .unscaled: return "1"
    case .watched: return "1, watched"
    case .used: return "as is" + warning
    case .converted: return "times \(factor(found.decodeScale / (found.found ?? 1)))" + warning
    case .ignored: return "ignored" + warning
    }
  }

  /// Factors are ratios of whole numbers.
  private static func factor(_ value: Float) -> String {
    value >= 1 ? "\(Int((value * 1000).rounded()) / 1000)" + fraction(value) : "1/" + factor(1 / value)
  }

  private static func fraction(_ value: Float) -> String {
    let thousandths = Int((value * 1000).rounded()) % 1000
    return thousandths == 0 ? "" : "." + String("\(1000 + thousandths)".dropFirst())
  }
}
