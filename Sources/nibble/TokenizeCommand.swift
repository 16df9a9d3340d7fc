import ArgumentParser
import JSON
import TextCodec

struct TokenizerOption: ParsableArguments {
  @Option(help: "A model folder, or a tokenizer.json (default: the model that ships with nibble).")
  var model: String?

  func load() throws -> Tokenizer { try Tokenizer(contentsOf: ModelLocation.resolve(model)) }
}

/// `nibble tokenize TEXT`.
struct TokenizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "tokenize",
    abstract: "Print the token ids of a text.",
    discussion: """
      Without a text it reads standard input, whatever its bytes: what is no UTF-8 becomes tokens byte by byte, and \
      'nibble detokenize' gives the same bytes back.
      """)

  @OptionGroup var tokenizer: TokenizerOption

  @Argument(help: "The text (default: standard input).")
  var text: String?

  @Flag(inversion: .prefixedNo, help: "Add the tokens that the model expects around a text.")
  var addSpecialTokens = true

  @Flag(inversion: .prefixedNo, help: "Take the names of special tokens in the text for those tokens.")
  var parseSpecialTokens = true

  @Flag(help: "Print an object with the ids and the text of each token.")
  var json = false

  func run() throws {
    let tokenizer = try tokenizer.load()
    let bytes = try text.map { Array($0.utf8) } ?? Console.readInput()
    let ids = tokenizer.encode(utf8: bytes, addSpecialTokens: addSpecialTokens, allowSpecial: parseSpecialTokens)
    if json {
      let result = JSONObject([
        ("count", .integer(Int64(ids.count))), ("token_ids", .array(ids.map { .integer(Int64($0)) })),
        ("tokens", .array(ids.map { .string(tokenizer.decode([$0])) })),
      ])
      Console.write(JSONValue.object(result).serialized() + "\n")
    } else {
      Console.write(ids.map { String($0) }.joined(separator: " ") + "\n")
    }
  }
}

/// `nibble detokenize ID...`.
struct DetokenizeCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "detokenize",
    abstract: "Print the text of token ids, byte for byte and without a line end of its own.")

  @OptionGroup var tokenizer: TokenizerOption

  @Argument(help: "Token ids, separated by spaces or commas (default: standard input).")
  var ids: [String] = []

  @Flag(help: "Leave special tokens out.")
  var skipSpecialTokens = false

  func run() throws {
    let tokenizer = try tokenizer.load()
    let text = ids.isEmpty ? String(decoding: try Console.readInput(), as: UTF8.self) : ids.joined(separator: " ")
    let ids = try text.split { ", \n\r\t[]".contains($0) }.map { word in
      guard let id = Int32(word) else {
        throw CommandFailure(.data, "expected token ids separated by spaces or commas, found '\(word.prefix(40))'")
      }
      guard tokenizer.bytes(of: id) != nil else {
        throw TextCodecError.unknownToken(id: Int(id), vocabularySize: tokenizer.vocabularySize)
      }
      return id
    }
    Console.write(bytes: tokenizer.decodeBytes(ids, skipSpecialTokens: skipSpecialTokens))
  }
}
