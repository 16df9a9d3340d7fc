/// What a request's stream tells, in order for each choice: tokens, then the end.
public enum GenerationEvent: Sendable {
  case token(GeneratedToken)
  case finished(Completion)
}

/// One chosen token.
public struct GeneratedToken: Sendable {
  /// Which of the request's completions.
  public let choice: Int
  public let id: Int32
  /// The text that this token completes. Empty inside a character, for a special token, and while the text could be the
  /// beginning of a stop string.
  public let text: String
  /// The token's log-probability before penalties and temperature, if asked for.
  public let logprob: Double?
  /// The most likely tokens at this place, if asked for.
  public let topLogprobs: [TokenLogprob]
  /// When the step that gave its logits was done.
  public let time: ContinuousClock.Instant
  package let logitsDigest: UInt64?
}

/// Why a completion ended; raw values are the wire names.
public enum FinishReason: String, Hashable, Sendable {
  /// The model ended, or a stop token or string came.
  case stop
  /// `maxTokens` are there.
  case length
  /// The client went away or the engine was shut down.
  case cancelled = "abort"
  /// The deadline passed.
  case deadline
}

/// The end of one completion.
public struct Completion: Sendable {
  public let choice: Int
  public let reason: FinishReason
  /// Text that was held back until now; comes after that of the tokens.
  public let text: String
  /// The stop string or the name of the stop token's id that ended it.
  public let matchedStop: String?
  public let usage: Usage
  public let timings: Timings

  /// The same end for a choice that never began.
  func of(choice: Int) -> Completion {
    Completion(choice: choice, reason: reason, text: "", matchedStop: nil, usage: usage, timings: timings)
  }
}

/// Tokens that a completion took.
public struct Usage: Hashable, Sendable {
  public var promptTokens = 0
  /// Prompt tokens that were found in the prefix cache.
  public var cachedTokens = 0
  public var completionTokens = 0
  /// Tokens of this completion in the KV cache at its end.
  public var kvTokens = 0
  /// Times it had to make room for others.
  public var preemptions = 0

  public init() {}
}

/// Where a completion's time went.
public struct Timings: Hashable, Sendable {
  /// From submission to the first step that took it in.
  public var queued = Duration.zero
  /// From submission to the first token.
  public var timeToFirstToken = Duration.zero
  /// From the first step to the first token: the time of the prompt.
  public var prefill = Duration.zero
  /// From the first token to the last.
  public var decode = Duration.zero
  /// Prompt tokens that were computed, not found, a second of `prefill`.
  public var prefillTokensPerSecond = 0.0
  /// Tokens after the first a second of `decode`; 0 for fewer than two tokens.
  public var decodeTokensPerSecond = 0.0

  public init() {}
}
