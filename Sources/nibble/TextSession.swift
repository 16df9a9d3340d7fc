import Checkpoints
import Engine
import KVQuantization
import TextCodec

/// An engine over one model folder, with what a command that talks to a person needs beside it.
struct TextSession {
  let directory: String
  let engine: Engine
  let tokenizer: Tokenizer
  /// Nil where the folder has none.
  let chatTemplate: ChatTemplate?
  let generation: GenerationConfiguration
  let attention: (name: String, reason: String)

  /// Loads the model of a plan and starts the engine; warnings go to stderr.
  init(_ plan: RunPlan, model: ModelOptions, cache: CacheOptions, engine options: EngineOptions) throws {
    let configuration = try options.configuration(model: model, cache: cache)
    let runtime = try model.load(cache: cache, speculation: configuration.speculation)
    let loaded = try LoadedModel(runtime, configuration: configuration, tokenizer: plan.tokenizer)
    directory = plan.directory
    generation = loaded.generation
    attention = loaded.attentionDecision
    for warning in loaded.warnings { Console.error("warning: \(warning)") }
    chatTemplate = try plan.chatTemplate()
    tokenizer = plan.tokenizer
    engine = try Engine(loaded, configuration: configuration)
  }

  /// Decides everything before a weight is read.
  init(model: ModelOptions, cache: CacheOptions, engine options: EngineOptions) throws {
    let plan = try RunPlan(model: model, cache: cache, engine: options)
    try self.init(plan, model: model, cache: cache, engine: options)
  }

  /// The lines that tell how the answer came about.
  func report(_ completion: Completion) -> [String] {
    let cache = engine.statistics().kvCache
    let (usage, timings) = (completion.usage, completion.timings)
    let cached = usage.cachedTokens > 0 ? ", \(usage.cachedTokens) of them from the cache" : ""
    var lines = [
      "prompt      \(usage.promptTokens) tokens\(cached); first token after \(timings.timeToFirstToken.milliseconds), "
        + "\(timings.prefillTokensPerSecond.decimals(0)) tokens/s",
      "answer      \(usage.completionTokens) tokens (\(completion.reason.rawValue)), "
        + "\(timings.decodeTokensPerSecond.decimals(0)) tokens/s",
      "kv cache    \(cache.recipes): \(cache.bytesPerToken) bytes a token, "
        + "\(cache.ratioToBF16.decimals(2)) times smaller than bf16",
      "attention   \(attention.name): \(attention.reason)",
    ]
    let speculation = engine.statistics().speculation
    if speculation.checks > 0 {
      lines.append(
        "drafts      \((speculation.acceptanceRate * 100).decimals(1))% of \(speculation.draftTokens) accepted, "
          + "\(speculation.tokensPerStep.decimals(2)) tokens a step; their layers keep "
          + "\(speculation.draftDtypeK) and \(speculation.draftDtypeV), \(speculation.draftBytesPerToken) of the bytes a token"
      )
    }
    if cache.replacedNonfinite > 0 {
      lines.append("warning: \(cache.replacedNonfinite) values of K or V were NaN or infinite and had to be replaced")
    }
    if cache.subnormalScaleShare > 0.01 {
      lines.append(
        "warning: \((cache.subnormalScaleShare * 100).decimals(1))% of the block scales are subnormal or zero; "
          + "calibrate the model's KV scales with nibble calibrate")
    }
    return lines
  }
}

extension RunPlan {
  /// Nil where the folder has none.
  func chatTemplate() throws(TextCodecError) -> ChatTemplate? {
    do throws(TextCodecError) {
      return try ChatTemplate(contentsOf: directory)
    } catch {
      if case .noChatTemplate = error { return nil }
      throw error
    }
  }
}
