import TextCodec

/// What requests an engine takes: token ids that the model knows, prompts and answers that context and pool can hold.
public struct RequestLimits: Sendable {
  /// Tokens that prompt and answer together may have.
  public let contextLength: Int
  public let vocabularySize: Int
  /// Tokens that the pool holds.
  public let poolTokens: Int
  /// Nil: prompts and answers are token ids.
  public let tokenizer: Tokenizer?

  /// The tokens of a prompt, and how many more the request may have.
  public func validate(_ request: Request) throws(EngineError) -> (prompt: [Int32], maxTokens: Int) {
    let prompt: [Int32]
    switch request.prompt {
    case .tokens(let tokens): prompt = tokens
    case .text(let text):
      guard let tokenizer else { throw .noText("a text prompt") }
      prompt = tokenizer.encode(text, addSpecialTokens: true, allowSpecial: true)
    }
    guard !prompt.isEmpty else { throw .emptyPrompt }
    if let unknown = prompt.first(where: { $0 < 0 || Int($0) >= vocabularySize }) {
      throw .unknownToken(id: unknown, vocabularySize: vocabularySize)
    }
    guard (1...128).contains(request.choiceCount) else {
      throw .invalidSampling(parameter: "n", expected: "1 to 128", found: "\(request.choiceCount)")
    }
    if tokenizer == nil, !request.sampling.stop.isEmpty { throw .noText("a stop string") }
    _ = try StopStrings(request.sampling.stop)
    let wanted = request.sampling.maxTokens
    guard prompt.count < contextLength || (wanted == 0 && prompt.count == contextLength) else {
      throw .promptTooLong(tokens: prompt.count, contextLength: contextLength)
    }
    if let wanted, wanted > contextLength - prompt.count {
      throw .requestTooLong(promptTokens: prompt.count, maxTokens: wanted, contextLength: contextLength)
    }
    // The last token is never stored.
    let room = poolTokens - prompt.count + 1
    guard prompt.count <= poolTokens, wanted ?? 1 <= room else {
      throw .requestExceedsPool(tokens: prompt.count + (wanted ?? 1) - 1, poolTokens: poolTokens)
    }
    return (prompt, wanted ?? min(contextLength - prompt.count, room))
  }
}
