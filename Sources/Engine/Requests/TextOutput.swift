import TextCodec

/// A completion's tokens on their way to text: whole characters only, and nothing of a stop string.
struct TextOutput {
  private var detokenizer: IncrementalDetokenizer?
  private var stops: StopStrings?

  /// - Parameter tokenizer: nil gives no text.
  init(tokenizer: Tokenizer?, stops: StopStrings?) {
    detokenizer = tokenizer.map { IncrementalDetokenizer($0, skipSpecialTokens: true) }
    self.stops = stops
    self.stops?.matcher.reserveCapacity()
  }

  /// - Returns: the text that can be shown now, and the stop string that the text has reached.
  mutating func append(_ token: Int32) -> (text: String, matchedStop: String?) {
    let piece = detokenizer?.append(token) ?? ""
    guard stops != nil, !piece.isEmpty else { return (piece, nil) }
    return (stops?.matcher.append(piece) ?? "", stops?.matched)
  }

  /// The text that was held back.
  mutating func finish() -> (text: String, matchedStop: String?) {
    let rest = detokenizer?.finish() ?? ""
    guard stops != nil else { return (rest, nil) }
    let text = (stops?.matcher.append(rest) ?? "") + (stops?.matcher.finish() ?? "")
    return (text, stops?.matched)
  }
}

/// A request's stop strings, ready to be looked for in each of its completions.
struct StopStrings {
  private let strings: [String]
  fileprivate var matcher: StopMatcher

  /// - Returns: nil for no strings.
  /// - Throws: `EngineError.invalidSampling` for an empty string.
  init?(_ strings: [String]) throws(EngineError) {
    guard !strings.isEmpty else { return nil }
    self.strings = strings
    do throws(TextCodecError) { matcher = try StopMatcher(strings) } catch {
      throw .invalidSampling(parameter: "stop", expected: "strings that are not empty", found: "an empty one")
    }
  }

  fileprivate var matched: String? { matcher.match.map { strings[$0.stopString] } }
}
