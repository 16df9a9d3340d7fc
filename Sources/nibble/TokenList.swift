/// Token ids given on the command line, as a list or as a file that holds one.
enum TokenList {
  /// - Throws: `CommandFailure` for an unreadable file, a word that is no id, or an empty list.
  static func read(_ argument: String) throws -> [Int32] {
    let isList = argument.utf8.allSatisfy { (UInt8(ascii: "0")...UInt8(ascii: "9")).contains($0) || isSeparator($0) }
    let text = isList ? Array(argument.utf8) : try contents(of: argument)
    var ids: [Int32] = []
    for word in text.split(whereSeparator: isSeparator) {
      let string = String(decoding: word, as: UTF8.self)
      guard let id = Int32(string), id >= 0 else {
        throw CommandFailure(.data, "expected token ids separated by commas or spaces, found '\(string.prefix(40))'")
      }
      ids.append(id)
    }
    guard !ids.isEmpty else { throw CommandFailure(.usage, "expected at least one token id, found none") }
    return ids
  }

  /// - Throws: `CommandFailure` for an id outside the vocabulary or more tokens than the model has positions.
  static func check(_ ids: [Int32], vocabularySize: Int, contextLimit: Int) throws {
    if let wrong = ids.first(where: { $0 >= vocabularySize }) {
      throw CommandFailure(.data, "expected token ids below the vocabulary size of \(vocabularySize), found \(wrong)")
    }
    guard ids.count <= contextLimit else {
      throw CommandFailure(
        .data, "expected at most \(contextLimit) tokens, the model's context, found \(ids.count); shorten the input")
    }
  }

  private static func contents(of path: String) throws -> [UInt8] {
    do { return try Console.readBytes(path) } catch let failure as CommandFailure {
      throw CommandFailure(failure.code, "--tokens takes a list of ids or a file that holds one; \(failure)")
    }
  }

  private static func isSeparator(_ byte: UInt8) -> Bool {
    byte == UInt8(ascii: ",") || byte == 0x20 || byte == 0x0A || byte == 0x0D || byte == 0x09
      || byte == UInt8(ascii: "[") || byte == UInt8(ascii: "]")
  }
}
