import ArgumentParser
import Checkpoints
import Engine
import JSON
import KVQuantization

/// `--dry-run`, wherever a model would be loaded.
struct DryRunOption: ParsableArguments {
  @Flag(help: "Decide everything, print each decision with its reason, and read no weights.")
  var dryRun = false
}

/// A plan as people and programs read it.
struct RunPlanReport {
  let decisions: [RunPlan.Decision]
  let warnings: [String]

  init(_ plan: RunPlan, adding decisions: [RunPlan.Decision] = []) {
    self.decisions = plan.decisions + decisions
    warnings = plan.warnings
  }

  /// Sections with a line for each decision: name, value, reason.
  var text: String {
    var text = ""
    var section = ""
    let widths = (decisions.map(\.name.count).max() ?? 0, decisions.map { min(40, $0.valueText.count) }.max() ?? 0)
    for decision in decisions {
      if decision.section != section { text += "\(decision.section)\n" }
      section = decision.section
      text +=
        "  \(decision.name.padded(to: widths.0))  \(decision.valueText.padded(to: widths.1))  \(decision.reason)\n"
    }
    return text + warnings.map { "warning: \($0)\n" }.joined()
  }

  /// {section: {name: {"value": ..., "reason": ...}}, ..., "warnings": [...]}.
  var json: JSONValue {
    var sections = JSONObject()
    for decision in decisions {
      var section = sections[decision.section]?.objectValue ?? JSONObject()
      section[decision.name] = ["value": decision.value, "reason": .string(decision.reason)]
      sections[decision.section] = .object(section)
    }
    sections["warnings"] = .array(warnings.map { .string($0) })
    return .object(sections)
  }

  func write(asJSON: Bool) {
    Console.write(asJSON ? json.serialized(pretty: true) + "\n" : text)
  }

  /// Several plans: texts one below the other, or an array.
  static func write(_ plans: [RunPlan], asJSON: Bool) {
    let reports = plans.map { RunPlanReport($0) }
    Console.write(
      asJSON
        ? JSONValue.array(reports.map(\.json)).serialized(pretty: true) + "\n"
        : reports.map(\.text).joined(separator: "\n"))
  }
}

extension RunPlan.Decision {
  fileprivate var valueText: String {
    switch value {
    case .null: "none"
    case .string(let text): text
    case .bool(let flag): flag ? "yes" : "no"
    case .number(let number): "\(Float(number))"
    default: value.serialized()
    }
  }
}

extension RunPlan {
  /// Resolves what the flags ask for.
  /// - Throws: what the run itself would, before it loads the model.
  init(model options: ModelOptions, cache: CacheOptions, engine: EngineOptions) throws {
    let configuration = try engine.configuration(model: options, cache: cache)
    try self.init(
      directory: try ModelLocation.resolve(options.model),
      attention: try options.attentionRequest(cache: cache, drafts: configuration.speculation?.draftTokenCount ?? 0),
      configuration: configuration, weightType: options.weightType)
    try cache.check(self.model)
    explain("model", "folder", options.folderReason)
    let both = cache.kvCacheDtype == nil ? "the default" : "--kv-cache-dtype"
    for name in ["dtype_k", "dtype_latent"] {
      explain("kv_cache", name, cache.kvCacheDtypeK == nil ? both : "--kv-cache-dtype-k")
    }
    explain("kv_cache", "dtype_v", cache.kvCacheDtypeV == nil ? both : "--kv-cache-dtype-v")
    explain(
      "kv_cache", "dtype_rope",
      cache.kvCacheDtypeRope == nil ? "the default: rotary keys are few and sensitive" : "--kv-cache-dtype-rope")
  }
}
