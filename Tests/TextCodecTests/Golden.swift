import JSON
import TestSupport
import Testing
import TextCodec

enum Resources {
  static let path = Repository.resources(of: "TextCodecTests")
  static let tinyQwen3 = Repository.model("tiny-qwen3")

  static func text(of resource: String) throws -> String { try readText("\(path)/\(resource)") }
}

/// What the `tokenizers` library makes of some strings; see Resources/make_golden.py.
struct GoldenSuite {
  var name: String
  var tokenizer: Tokenizer
  var normalizes: Bool
  /// A text and its tokens, with those that the post-processor adds.
  var cases: [(text: String, ids: [Int32])]
  /// The same for texts that name special tokens, when those are ordinary text; without the post-processor's.
  var specialAsText: [(text: String, ids: [Int32])]

  static func load() throws -> [GoldenSuite] {
    let golden = try JSONValue.parse(contentsOf: Resources.path + "/tokenizer_golden.json")
    let strings = try #require(golden["strings"]?.arrayValue).compactMap(\.stringValue)
    let bases: [String: JSONValue] = [
      "qwen3": try JSONValue.parse(contentsOf: Resources.tinyQwen3 + "/tokenizer.json"),
      "llama3": try JSONValue.parse(contentsOf: Resources.path + "/llama3.json"),
    ]
    return try #require(golden["suites"]?.arrayValue).map { suite in
      var file = try #require(bases[suite["base"]?.stringValue ?? ""]?.objectValue)
      for (key, value) in suite["fields"]?.objectValue ?? JSONObject() { file[key] = value }
      let texts =
        (suite["part"]?.arrayValue?.compactMap(\.intValue).map { strings[$0] } ?? strings)
        + (suite["extra"]?.arrayValue?.compactMap(\.stringValue) ?? [])
      let ids = try #require(suite["ids"]?.arrayValue).map(Self.ids)
      try #require(ids.count == texts.count)
      return GoldenSuite(
        name: suite["name"]?.stringValue ?? "", tokenizer: try Tokenizer(.object(file)),
        normalizes: file["normalizer"]?["type"]?.stringValue == "NFC",
        cases: zip(texts, ids).map { ($0, $1) },
        specialAsText: (suite["special_as_text"]?.arrayValue ?? []).compactMap { pair in
          guard let index = pair[0]?.intValue, let ids = pair[1] else { return nil }
          return (strings[index], Self.ids(ids))
        })
    }
  }

  private static func ids(_ value: JSONValue) -> [Int32] {
    (value.arrayValue ?? []).compactMap(\.intValue).map(Int32.init)
  }
}
