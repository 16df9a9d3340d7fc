/// How tokens are chosen and when a completion ends. Names and definitions follow vLLM's `SamplingParams`.
public struct SamplingParameters: Hashable, Sendable {
  /// Divides the logits; 0 (and anything below 1e-5) is greedy.
  public let temperature: Float
  /// Keeps the k most likely tokens and those that tie with the last; 0 keeps all.
  public let topK: Int
  /// Keeps the smallest set of most likely tokens whose probabilities reach this sum.
  public let topP: Float
  /// Keeps tokens at least this share as likely as the most likely one.
  public let minP: Float
  /// Divides positive and multiplies negative logits of tokens in prompt or answer (arXiv 1909.05858, section 4.1).
  public let repetitionPenalty: Float
  /// Subtracted from a token's logit for each time the answer has it.
  public let frequencyPenalty: Float
  /// Subtracted from a token's logit if the answer has it.
  public let presencePenalty: Float
  /// Equal seeds give equal answers, whatever else the engine does; nil draws one.
  public let seed: UInt64?
  /// Strings that end the answer; they are not part of it.
  public let stop: [String]
  /// Token ids that end the answer, besides the model's own end of sequence.
  public let stopTokenIDs: [Int32]
  /// Goes on after the model's end of sequence.
  public let ignoreEOS: Bool
  /// Tokens to generate at most; 0 only fills the cache; nil is what context and pool hold.
  public let maxTokens: Int?
  /// Tokens before which the model's end of sequence and `stopTokenIDs` can't be chosen.
  public let minTokens: Int
  /// Alternatives whose log-probabilities are reported with each token, 0 for the token's own only; nil for none.
  public let logprobs: Int?

  /// - Throws: `EngineError.invalidSampling`, which names the parameter, its range and the value.
  public init(
    temperature: Float = 0, topK: Int = 0, topP: Float = 1, minP: Float = 0, repetitionPenalty: Float = 1,
    frequencyPenalty: Float = 0, presencePenalty: Float = 0, seed: UInt64? = nil, stop: [String] = [],
    stopTokenIDs: [Int32] = [], ignoreEOS: Bool = false, maxTokens: Int? = nil, minTokens: Int = 0, logprobs: Int? = nil
  ) throws(EngineError) {
    func check(_ valid: Bool, _ parameter: String, _ expected: String, _ found: Any) throws(EngineError) {
      if !valid { throw .invalidSampling(parameter: parameter, expected: expected, found: "\(found)") }
    }
    try check(temperature >= 0 && temperature.isFinite, "temperature", "a number from 0 on", temperature)
    try check(topK >= -1, "top_k", "0 (all) or a positive number", topK)
    try check(topP > 0 && topP <= 1, "top_p", "a number above 0, up to 1", topP)
    try check(minP >= 0 && minP <= 1, "min_p", "a number from 0 to 1", minP)
    // What is beyond makes infinities of logits, which would look like a fault of the model.
    try check(
      (1e-6...1e6).contains(repetitionPenalty), "repetition_penalty", "a number from 1e-6 to 1e6", repetitionPenalty)
    try check(abs(frequencyPenalty) <= 2, "frequency_penalty", "a number from -2 to 2", frequencyPenalty)
    try check(abs(presencePenalty) <= 2, "presence_penalty", "a number from -2 to 2", presencePenalty)
    try check(!stop.contains(""), "stop", "strings that are not empty", "an empty one")
    try check(stop.count <= 64, "stop", "at most 64 strings", stop.count)
    let badID = stopTokenIDs.first { $0 < 0 }
    try check(badID == nil, "stop_token_ids", "ids from 0 on", badID ?? 0)
    try check(maxTokens ?? 0 >= 0, "max_tokens", "0 or a positive number", maxTokens ?? 0)
    try check(
      minTokens >= 0 && minTokens <= maxTokens ?? .max, "min_tokens", "a number from 0 to max_tokens", minTokens)
    try check((0...20).contains(logprobs ?? 0), "logprobs", "a number from 0 to 20", logprobs ?? 0)
    self.temperature = temperature
    self.topK = max(0, topK)
    self.topP = topP
    self.minP = minP
    self.repetitionPenalty = repetitionPenalty
    self.frequencyPenalty = frequencyPenalty
    self.presencePenalty = presencePenalty
    self.seed = seed
    self.stop = stop
    self.stopTokenIDs = stopTokenIDs
    self.ignoreEOS = ignoreEOS
    self.maxTokens = maxTokens
    self.minTokens = minTokens
    self.logprobs = logprobs
  }

  private init(greedy: Void) {
    (temperature, topK, topP, minP) = (0, 0, 1, 0)
    (repetitionPenalty, frequencyPenalty, presencePenalty) = (1, 0, 0)
    (seed, stop, stopTokenIDs, ignoreEOS) = (nil, [], [], false)
    (maxTokens, minTokens, logprobs) = (nil, 0, nil)
  }

  /// The most likely token each time, until the model ends.
  public static let greedy = SamplingParameters(greedy: ())

  var isGreedy: Bool { temperature < 1e-5 }
  var hasPenalties: Bool { repetitionPenalty != 1 || frequencyPenalty != 0 || presencePenalty != 0 }
}
