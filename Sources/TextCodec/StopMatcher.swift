/// Looks for stop strings in text that arrives in parts. It gives out no byte of a stop string that matches: text that
/// may be the beginning of one is held back until it can't be.
///
/// The stop string that is complete first ends the text; of those complete at the same character, the longest. So the
/// result doesn't depend on how the text was cut into parts.
public struct StopMatcher: Sendable {
  /// A stop string that was found.
  public struct Match: Hashable, Sendable {
    /// Index into the stop strings.
    public var stopString: Int
    /// Where it begins, in UTF-8 bytes of all the text so far.
    public var offset: Int

    public init(stopString: Int, offset: Int) {
      self.stopString = stopString
      self.offset = offset
    }
  }

  /// A stop string, and how much of it the text ends with, kept as Knuth, Morris and Pratt do.
  private struct Pattern: Sendable {
    var bytes: [UInt8]
    /// For each count of matched bytes: the longest shorter count that the same text ends with.
    var fallback: [Int]
    var matched = 0

    init(_ bytes: [UInt8]) {
      self.bytes = bytes
      fallback = [0, 0]
      var count = 0
      for byte in bytes.dropFirst() {
        while count > 0, bytes[count] != byte { count = fallback[count] }
        if bytes[count] == byte { count += 1 }
        fallback.append(count)
      }
    }

    /// Takes the next byte; true where the string is complete.
    mutating func advance(_ byte: UInt8) -> Bool {
      while matched > 0, bytes[matched] != byte { matched = fallback[matched] }
      if bytes[matched] == byte { matched += 1 }
      return matched == bytes.count
    }
  }

  private var patterns: [Pattern]
  /// Bytes of the text that were not given out yet; the last of all that came.
  private var held: [UInt8] = []
  private var consumed = 0
  /// The stop string that ended the text.
  public private(set) var match: Match?

  /// - Throws: `TextCodecError.invalidStopString` for an empty string.
  public init(_ stopStrings: [String]) throws(TextCodecError) {
    guard !stopStrings.contains("") else {
      throw .invalidStopString("expected at least one character, found an empty string")
    }
    patterns = stopStrings.map { Pattern(Array($0.utf8)) }
  }

  /// Gives this copy memory of its own for the text of ordinary tokens, so that taking them in allocates nothing.
  public mutating func reserveCapacity() {
    held.reserveCapacity(patterns.reduce(64) { max($0, 64 + $1.bytes.count) })
    patterns.reserveCapacity(patterns.count)
  }

  /// The next part of the text; returns what can't belong to a stop string any more. After a match: always nothing.
  public mutating func append(_ text: String) -> String {
    guard match == nil else { return "" }
    guard !patterns.isEmpty else { return text }
    for byte in text.utf8 {
      held.append(byte)
      consumed += 1
      var found: Int?
      for index in patterns.indices where patterns[index].advance(byte) {
        if patterns[index].bytes.count > found.map({ patterns[$0].bytes.count }) ?? 0 { found = index }
      }
      guard let found else { continue }
      let length = patterns[found].bytes.count
      match = Match(stopString: found, offset: consumed - length)
      held.removeLast(length)
      return release(held.count)
    }
    return release(held.count - patterns.reduce(0) { max($0, $1.matched) })
  }

  /// Ends the text; returns what was held back. Nothing after a match.
  public mutating func finish() -> String { release(held.count) }

  private mutating func release(_ count: Int) -> String {
    defer { held.removeFirst(count) }
    return String(decoding: held[..<count], as: UTF8.self)
  }
}
