/// Judges an SGLang command line by its published rules for the FP4 KV cache, without loading anything.
public struct SGLangCheck: Sendable {
  public let version: SGLangVersion
  public let context: LaunchContext

  public init(version: SGLangVersion, context: LaunchContext) {
    self.version = version
    self.context = context
  }

  /// The verdict, with a working alternative where it is a refusal.
  public func judge(_ arguments: LaunchArguments) -> LaunchVerdict {
    var run = SGLangRun(version: version, context: context, arguments: arguments)
    run.check()
    let refuses = run.findings.contains { $0.severity == .refuses }
    return LaunchVerdict(
      findings: run.findings, prefillBackend: run.prefill, decodeBackend: run.decode,
      alternative: refuses ? alternative(to: arguments) : nil)
  }

  /// The nearest launch that starts: other backends first, then another 4-bit recipe, then FP8, each without warnings if possible.
  private func alternative(to arguments: LaunchArguments) -> String? {
    let wanted = arguments["kv-cache-dtype"] ?? "auto"
    let dtypes = [wanted] + (version.recipes + ["fp8_e4m3", "auto"]).filter { $0 != wanted }
    let names = SGLangBackend.all(usesMLA: context.usesMLA).map(\.name)
    let stripped = [
      "attention-backend", "prefill-attention-backend", "decode-attention-backend", "prefill-kv-cache-dequant-dtype",
    ].reduce(arguments) { $0.setting($1, nil) }
    let exclusions =
      (version.nvfp4?.excludedOptions.map(\.name) ?? []) + [
        "enable-unified-memory", "speculative-algorithm", "page-size", "device",
      ]
    for dtype in dtypes {
      let base = stripped.setting("kv-cache-dtype", dtype)
      // Keep as much as possible: first only the backends change, then options that stand in the way fall one by one.
      for dropped in [nil] + exclusions.map({ Optional($0) }) {
        if let dropped, arguments[dropped] == nil { continue }
        let reduced = dropped.map { base.setting($0, nil) } ?? base
        let candidates = [reduced] + names.map { reduced.setting("attention-backend", $0) }
        for limit in [LaunchFinding.Severity.note, .degrades] {
          for candidate in candidates where severity(candidate) <= limit { return candidate.text }
        }
      }
    }
    return nil
  }

  private func severity(_ arguments: LaunchArguments) -> LaunchFinding.Severity {
    var run = SGLangRun(version: version, context: context, arguments: arguments)
    run.check()
    return run.findings.map(\.severity).max() ?? .note
  }
}
