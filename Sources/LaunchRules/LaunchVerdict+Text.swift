extension LaunchVerdict {
  /// For people: the verdict with the backends, a line for each finding with its rule, worst first, and what would start.
  public var text: String {
    var lines = ["\(word): prefill \(prefillBackend ?? "?"), decode \(decodeBackend ?? "?")"]
    // Findings of equal severity keep the order of the checks.
    for severity in [LaunchFinding.Severity.refuses, .degrades, .note] {
      lines += findings.filter { $0.severity == severity }.map { "  \(severity.word): \($0.text) [\($0.rule)]" }
    }
    if let alternative { lines.append("instead: \(alternative)") }
    return lines.joined(separator: "\n")
  }
}

extension LaunchFinding.Severity {
  public var word: String {
    switch self {
    case .note: "note"
    case .degrades: "warning"
    case .refuses: "error"
    }
  }
}
