import JSON
import TestSupport
import Testing
import TextCodec

/// Damaged files give an error or a tokenizer that works, never a trap.
@Suite struct TokenizerFuzzTests {
  /// A small tokenizer.json with everything in it: vocabulary of bytes and some merges, added tokens, all kinds of
  /// steps.
  private func smallFile() throws -> JSONValue {
    let full = try JSONValue.parse(contentsOf: Resources.path + "/llama3.json")
    var root = try #require(full.objectValue)
    var model = try #require(full["model"]?.objectValue)
    let merges = try #require(model["merges"]?.arrayValue).prefix(30)
    let vocabulary = try #require(model["vocab"]?.objectValue)
    model["vocab"] = .object(
      JSONObject(vocabulary.filter { ($0.1.intValue ?? 0) < 300 || $0.1.intValue == 1799 }))
    model["merges"] = .array(
      merges.enumerated().map { index, merge in
        let pair = (merge.stringValue ?? "").split(separator: " ").map { JSONValue.string(String($0)) }
        return index % 2 == 0 ? merge : .array(pair)
      })
    root["model"] = .object(model)
    root["normalizer"] = ["type": "Sequence", "normalizers": [["type": "NFC"]]]
    root["added_tokens"] = .array(
      (root["added_tokens"]?.arrayValue ?? []) + [
        [
          "id": 1900, "content": "<é>", "single_word": true, "lstrip": true, "rstrip": true, "normalized": true,
          "special": false,
        ]
      ])
    return .object(root)
  }

  private func exercise(_ tokenizer: Tokenizer) {
    let texts = [
      "", "Hello <|eot_id|> world 123\n\n  x", " <é> e\u{301}", "ab\u{0}", String(repeating: "then ", count: 30),
    ]
    for text in texts {
      for allow in [true, false] {
        let ids = tokenizer.encode(text, addSpecialTokens: allow, allowSpecial: allow)
        _ = tokenizer.decode(ids, skipSpecialTokens: allow)
        var detokenizer = IncrementalDetokenizer(tokenizer)
        for id in ids { _ = detokenizer.append(id) }
        _ = detokenizer.finish()
      }
    }
    _ = tokenizer.encode(utf8: [0xFF, 0x20, 0xE2, 0x82])
  }

  /// Loads bytes as a file's; true where that succeeds.
  private func load(_ bytes: [UInt8]) -> Bool {
    guard let root = try? JSONValue.parse(bytes: bytes), let tokenizer = try? Tokenizer(root) else { return false }
    exercise(tokenizer)
    return true
  }

  @Test func damagedBytes() throws {
    let original = try smallFile().serializedBytes()
    #expect(load(original))
    var random = SplitMix(seed: 11)
    var survivors = 0
    for round in 0..<2_000 {
      var bytes = original
      let place = Int.random(in: 0..<bytes.count, using: &random)
      switch round % 5 {
      case 0: bytes.removeLast(bytes.count - place)
      case 1: for _ in 0...round % 4 { bytes[Int.random(in: 0..<bytes.count, using: &random)] ^= 1 << (round % 8) }
      case 2: bytes.removeSubrange(place..<min(place + Int.random(in: 1...40, using: &random), bytes.count))
      case 3: bytes.insert(contentsOf: bytes[place..<min(place + 30, bytes.count)], at: place)
      default:
        // A number somewhere becomes an absurd one.
        guard let digit = bytes[place...].firstIndex(where: { (0x30...0x39).contains($0) }) else { continue }
        let absurd = [
          "-1", "4294967296", "9223372036854775807", "1e99", "2147483647", "4194305", "0.5", "-9223372036854775808",
        ]
        bytes.replaceSubrange(digit...digit, with: Array(absurd[round / 5 % absurd.count].utf8))
      }
      if load(bytes) { survivors += 1 }
    }
    #expect(survivors > 50, "too little of the code behind the parser was reached")
  }

  @Test func damagedStructure() throws {
    let original = try smallFile()
    var random = SplitMix(seed: 12)
    let replacements: [JSONValue] = [
      nil, true, 0, -1, 1.5, 9_223_372_036_854_775_807, "", "Ġ", "NFC", "ByteLevel", "Sequence", "\u{1F600}", [], [[]],
      [nil],
      [:], ["type": "Sequence"], ["a", "b"], ["a b"], ["Sequence": ["id": "A"]],
    ]
    func damage(_ value: JSONValue, depth: Int) -> JSONValue {
      if depth > 0, Int.random(in: 0..<6, using: &random) == 0 {
        return replacements.randomElement(using: &random) ?? nil
      }
      switch value {
      case .object(let members) where members.count > 0:
        let chosen = Int.random(in: 0..<members.count, using: &random)
        let drops = Int.random(in: 0..<4, using: &random) == 0
        var result = JSONObject()
        for (index, (key, member)) in members.enumerated() where !(drops && index == chosen) {
          result[key] = index == chosen ? damage(member, depth: depth + 1) : member
        }
        return .object(result)
      case .array(var elements) where !elements.isEmpty:
        let chosen = Int.random(in: 0..<elements.count, using: &random)
        if Int.random(in: 0..<4, using: &random) == 0 {
          elements.remove(at: chosen)
        } else {
          elements[chosen] = damage(elements[chosen], depth: depth + 1)
        }
        return .array(elements)
      default: return replacements.randomElement(using: &random) ?? nil
      }
    }
    var survivors = 0
    for _ in 0..<2_000 {
      guard let tokenizer = try? Tokenizer(damage(original, depth: 0)) else { continue }
      exercise(tokenizer)
      survivors += 1
    }
    #expect(survivors > 100)
  }

  @Test func errorsNameTheFieldAndTheRemedy() throws {
    func message(_ change: (inout JSONObject) -> Void) throws -> String {
      var root = try #require(try smallFile().objectValue)
      change(&root)
      do {
        _ = try Tokenizer(.object(root))
        return "no error"
      } catch { return "\(error)" }
    }
    #expect(try message { $0["model"] = nil }.contains("model"))
    #expect(try message { $0["normalizer"] = ["type": "NFKC"] }.contains("'NFKC' is not supported"))
    let pattern: JSONValue = ["type": "Split", "pattern": ["Regex": "[a-z]+"], "behavior": "Isolated"]
    let unknown = try message { $0["pre_tokenizer"] = ["type": "Sequence", "pretokenizers": [pattern]] }
    #expect(unknown.contains("[a-z]+") && unknown.contains("Llama 3"))
    #expect(try message { $0["pre_tokenizer"] = ["type": "Metaspace"] }.contains("'Metaspace'"))
    #expect(try message { $0["decoder"] = ["type": "WordPiece"] }.contains("'WordPiece'"))
    #expect(try message { $0["post_processor"] = ["type": "BertProcessing"] }.contains("'BertProcessing'"))
    #expect(try message { $0["added_tokens"] = [["id": -5, "content": "x"]] }.contains("added_tokens[0].id"))
    #expect(throws: TextCodecError.self) { try Tokenizer(contentsOf: "/nowhere/at/all") }
  }
}
