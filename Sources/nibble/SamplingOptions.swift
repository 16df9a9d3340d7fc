import ArgumentParser
import Checkpoints
import Engine

/// How tokens are chosen; the same flags wherever text is generated. Unset flags follow the model's generation_config.json.
struct SamplingOptions: ParsableArguments {
  @Option(name: [.customLong("max-tokens"), .customShort("n")], help: "Tokens to generate at most.")
  var maxTokens: Int?

  @Option(help: "Softmax temperature; 0 always takes the most likely token.")
  var temperature: Float?

  @Option(help: "Keep the k most likely tokens; 0 keeps all.")
  var topK: Int?

  @Option(help: "Keep the smallest set of tokens whose probabilities reach this sum.")
  var topP: Float?

  @Option(help: "Keep tokens at least this share as likely as the most likely one.")
  var minP: Float?

  @Option(help: "Divide the logits of tokens that have occurred by this.")
  var repetitionPenalty: Float?

  @Option(help: "Subtract this from a token's logit for each time the answer has it.")
  var frequencyPenalty: Float = 0

  @Option(help: "Subtract this from the logits of tokens that the answer has.")
  var presencePenalty: Float = 0

  @Option(help: "Seed of the sampler; equal seeds give equal answers.")
  var seed: UInt64?

  @Option(help: "End the answer before this string; may be given several times.")
  var stop: [String] = []

  @Flag(help: "Go on after the model's end of sequence.")
  var ignoreEos = false

  /// - Parameters:
  ///   - defaults: the model's, for flags that were not given.
  ///   - room: tokens that the context has left after the prompt; bounds the model's default length, not the flag's.
  /// - Throws: `EngineError.invalidSampling`.
  func parameters(defaults: GenerationConfiguration, room: Int) throws(EngineError) -> SamplingParameters {
    let samples = defaults.doSample ?? false
    return try SamplingParameters(
      temperature: temperature ?? (samples ? Float(defaults.temperature ?? 1) : 0),
      topK: topK ?? (samples ? defaults.topK ?? 0 : 0), topP: topP ?? (samples ? Float(defaults.topP ?? 1) : 1),
      minP: minP ?? (samples ? Float(defaults.minP ?? 0) : 0),
      repetitionPenalty: repetitionPenalty ?? Float(defaults.repetitionPenalty ?? 1),
      frequencyPenalty: frequencyPenalty,
      presencePenalty: presencePenalty, seed: seed, stop: stop, ignoreEOS: ignoreEos,
      maxTokens: maxTokens ?? defaults.maxNewTokens.map { min($0, max(room, 1)) })
  }

  /// Who said how tokens are chosen.
  func decisions(_ parameters: SamplingParameters, _ defaults: GenerationConfiguration) -> [RunPlan.Decision] {
    let samples = defaults.doSample ?? false
    func decide<Flag, Default>(
      _ name: String, _ value: Float, _ flag: Flag?, _ given: Default?, needsSampling: Bool = true
    ) -> RunPlan.Decision {
      let flagName = "--" + name.replacing("_", with: "-")
      let reason =
        if flag != nil { flagName } else if needsSampling, !samples {
          "generation_config.json doesn't ask for sampling"
        } else { given == nil ? "the default" : "generation_config.json" }
      return RunPlan.Decision("sampling", name, .number(Double(value)), reason)
    }
    return [
      decide("temperature", parameters.temperature, temperature, defaults.temperature),
      decide("top_k", Float(parameters.topK), topK, defaults.topK),
      decide("top_p", parameters.topP, topP, defaults.topP), decide("min_p", parameters.minP, minP, defaults.minP),
      decide(
        "repetition_penalty", parameters.repetitionPenalty, repetitionPenalty, defaults.repetitionPenalty,
        needsSampling: false),
      RunPlan.Decision(
        "sampling", "seed", parameters.seed.map { .string("\($0)") } ?? .null,
        parameters.seed == nil ? "drawn for each request" : "--seed"),
    ]
  }

  /// Who said how long an answer may be.
  func lengthReason(_ defaults: GenerationConfiguration) -> String {
    if maxTokens != nil { return "--max-tokens" }
    return defaults.maxNewTokens == nil
      ? "what context and pool have left" : "max_new_tokens of generation_config.json, bounded by the context"
  }
}
