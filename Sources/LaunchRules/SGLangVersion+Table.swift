extension SGLangVersion {
  /// The rules of every known version side by side, as `nibble check-launch --rules` prints them.
  public static var table: String {
    let head = [
      "| rule | " + known.map(\.source).joined(separator: " | ") + " |", "|---|" + known.map { _ in "---|" }.joined(),
    ]
    return (head + rules.map { rule in "| \(rule.name) | " + known.map(rule.text).joined(separator: " | ") + " |" })
      .joined(separator: "\n")
  }

  private static var rules: [(name: String, text: (SGLangVersion) -> String)] {
    func list(_ names: [String]) -> String { names.isEmpty ? "-" : names.joined(separator: ", ") }
    func native(_ text: @escaping (SGLangNVFP4) -> String) -> (SGLangVersion) -> String {
      { $0.nvfp4.map(text) ?? "-" }
    }
    return [
      ("4-bit recipes", { list($0.recipes) }),
      (
        "other names",
        { list($0.retiredRecipes.sorted { $0.key < $1.key }.map { "\($0.key) \($0.value)" }) }
      ),
      ("device", { list($0.devices) }),
      ("options refused with 4 bits", { list($0.refusedOptions) }),
      ("decode beside an fa4 prefill, MHA", { list($0.decodeBesideFA4MHA) }),
      ("decode beside an fa4 prefill, MLA", { list($0.decodeBesideFA4MLA) }),
      ("one backend for both, MHA", { list($0.bothMHA) }),
      ("one backend for both, MLA", { list($0.bothMLA) }),
      ("two other backends", { _ in "a warning" }),
      ("refused by its own validator", { list($0.refusedByOwnValidator) }),
      ("nvfp4: GPUs", native { list($0.capabilities.map { "SM\($0)" }) }),
      ("nvfp4: decode", native { $0.decode }),
      (
        "nvfp4: prefill by \(SGLangNVFP4.dequantOption)",
        native { rules in
          list(rules.prefillOfDequant.sorted { $0.key < $1.key }.map { "\($0.key): \($0.value)" })
            + "; auto: \(rules.nativeDequant) on \(list(rules.nativeCapabilities.map { "SM\($0)" })), else \(rules.otherDequant)"
        }
      ),
      ("nvfp4 native: refused options", native { list($0.excludedOptions.map(\.name)) }),
      (
        "nvfp4 native: speculation",
        native { rules in
          list(rules.speculativeAlgorithms.map { rules.breadthOfOne[$0] == nil ? $0 : "\($0) of breadth 1" })
            + "; drafts on \(rules.draftBackend)"
        }
      ),
      (
        "nvfp4 native: shapes",
        native { "pages of multiples of \($0.pageUnit), head dimensions of multiples of \($0.headDimensionUnit)" }
      ),
    ]
  }
}
