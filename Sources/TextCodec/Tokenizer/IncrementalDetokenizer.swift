/// Turns tokens to text one by one, and never gives out half a character: bytes that may be the beginning of one wait
/// for the tokens that complete it. All that it returns, joined, is what `Tokenizer.decode` gives for all the tokens
/// at once.
public struct IncrementalDetokenizer: Sendable {
  private let tokenizer: Tokenizer
  private let skipSpecialTokens: Bool
  /// At most three bytes: a character's beginning.
  private var pending: [UInt8] = []

  /// - Parameter skipSpecialTokens: leaves tokens that control the model out of the text.
  public init(_ tokenizer: Tokenizer, skipSpecialTokens: Bool = true) {
    self.tokenizer = tokenizer
    self.skipSpecialTokens = skipSpecialTokens
    pending.reserveCapacity(64)
  }

  /// The text that the next token completes; often empty inside a character of several tokens.
  public mutating func append(_ id: Int32) -> String {
    if skipSpecialTokens, tokenizer.isSpecial(id) { return "" }
    guard let bytes = tokenizer.bytes(of: id) else { return "" }
    pending += bytes
    let complete = pending.count - Self.incompleteCount(pending)
    defer { pending.removeFirst(complete) }
    return String(decoding: pending[..<complete], as: UTF8.self)
  }

  /// Ends the text: U+FFFD in place of a character that never was completed.
  public mutating func finish() -> String {
    defer { pending.removeAll() }
    return String(decoding: pending, as: UTF8.self)
  }

  /// How many bytes at the end are the beginning of a character that more bytes could complete.
  private static func incompleteCount(_ bytes: [UInt8]) -> Int {
    for count in 1...3 where count <= bytes.count {
      let first = bytes[bytes.count - count]
      if first & 0xC0 == 0x80 { continue }
      let length = first >= 0xF0 ? 4 : first >= 0xE0 ? 3 : first >= 0xC0 ? 2 : 1
      guard length > count, first >= 0xC2, first <= 0xF4 else { return 0 }
      guard count > 1 else { return 1 }
      // The second byte's range excludes overlong forms, surrogates and values beyond U+10FFFF (Unicode, table 3-7).
      let allowed: ClosedRange<UInt8> =
        switch first {
        case 0xE0: 0xA0...0xBF
        case 0xED: 0x80...0x9F
        case 0xF0: 0x90...0xBF
        case 0xF4: 0x80...0x8F
        default: 0x80...0xBF
        }
      return allowed.contains(bytes[bytes.count - count + 1]) ? count : 0
    }
    return 0
  }
}
