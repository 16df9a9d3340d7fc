import JSON
import TestSupport
import Testing
import TextCodec

@Suite struct TokenizerGoldenTests {
  @Test func idsEqualTheLibrarys() throws {
    for suite in try GoldenSuite.load() {
      var mismatches: [String] = []
      for (text, ids) in suite.cases {
        let found = suite.tokenizer.encode(text)
        if found != ids { mismatches.append("\(text.debugDescription): expected \(ids), found \(found)") }
      }
      let (count, shown) = (mismatches.count, mismatches.prefix(5).joined(separator: "\n"))
      #expect(count == 0, "\(suite.name), \(suite.cases.count) strings\n\(shown)")
      for (text, ids) in suite.specialAsText {
        let found = suite.tokenizer.encode(text, addSpecialTokens: false, allowSpecial: false)
        #expect(found == ids, "\(suite.name): \(text)")
      }
    }
  }

  @Test func theSuitesAreComplete() throws {
    let suites = try GoldenSuite.load()
    #expect(
      suites.map(\.name) == ["qwen3", "llama3", "gpt2", "prefix space", "qwen3.5", "deepseek", "added tokens"])
    #expect(suites[0].cases.count >= 3_000 && suites[1].cases.count >= 3_000)
    #expect(suites[0].specialAsText.count > 20 && suites[1].specialAsText.count > 20)
    for suite in suites { #expect(suite.cases.count >= 300) }
  }

  /// The two full suites lose nothing but what the normaliser changes.
  @Test func decodingGivesTheTextBack() throws {
    for suite in try GoldenSuite.load().prefix(2) {
      for (text, _) in suite.cases {
        let expected = suite.normalizes ? NormalizationFormC.normalize(text) : Array(text.utf8)
        let ids = suite.tokenizer.encode(text, addSpecialTokens: false)
        #expect(suite.tokenizer.decodeBytes(ids) == expected)
        #expect(suite.tokenizer.decode(ids).utf8.elementsEqual(expected))
      }
    }
  }

  /// Bytes of valid text are the text.
  @Test func bytesOfTextEncodeAsTheText() throws {
    for suite in try GoldenSuite.load() {
      for (text, ids) in suite.cases { #expect(suite.tokenizer.encode(utf8: Array(text.utf8)) == ids) }
    }
  }

  @Test func incrementalDetokenizerEqualsTheWhole() throws {
    for suite in try GoldenSuite.load() {
      for (text, ids) in suite.cases {
        for skip in [false, true] {
          var detokenizer = IncrementalDetokenizer(suite.tokenizer, skipSpecialTokens: skip)
          var joined = ids.reduce(into: "") { $0 += detokenizer.append($1) }
          joined += detokenizer.finish()
          let whole = suite.tokenizer.decode(ids, skipSpecialTokens: skip)
          #expect(joined.utf8.elementsEqual(whole.utf8), "\(text)")
        }
      }
    }
  }
}

@Suite struct TokenizerTests {
  let tokenizer: Tokenizer
  let llama3: Tokenizer

  init() throws {
    tokenizer = try Tokenizer(contentsOf: Resources.tinyQwen3)
    llama3 = try Tokenizer(contentsOf: Resources.path + "/llama3.json")
  }

  @Test func specialTokens() throws {
    let end = try #require(tokenizer.id(ofAddedToken: "<|im_end|>"))
    #expect(end == 4095 && tokenizer.vocabularySize == 4096)
    #expect(tokenizer.isSpecial(end) && !tokenizer.isSpecial(0))
    #expect(tokenizer.encode("a<|im_end|>b") == [64, end, 65])
    #expect(!tokenizer.encode("a<|im_end|>b", allowSpecial: false).contains(end))
    #expect(tokenizer.decode([64, end, 65], skipSpecialTokens: true) == "ab")
    #expect(tokenizer.decode([64, end, 65]) == "a<|im_end|>b")
    #expect(llama3.encode("a").count == 2 && llama3.encode("a", addSpecialTokens: false).count == 1)
  }

  /// A tokenizer_config.json that adds tokens which tokenizer.json doesn't.
  @Test func tokensThatTheConfigurationAdds() throws {
    let root = try JSONValue.parse(contentsOf: Resources.tinyQwen3 + "/tokenizer.json")
    let start = #"{"bos_token": {"content": "<|im_start|>"}, "eos_token": "<|im_end|>", "#
    let both = try Tokenizer(root, config: JSONValue.parse(start + #""add_bos_token": true, "add_eos_token": true}"#))
    #expect(both.encode("a") == [4094, 64, 4095] && both.encode("a", addSpecialTokens: false) == [64])
    let none = try Tokenizer(root, config: JSONValue.parse(start + #""add_bos_token": false}"#))
    #expect(none.encode("a") == [64])
    // Already there: not added again.
    let llama = try JSONValue.parse(contentsOf: Resources.path + "/llama3.json")
    let once = try Tokenizer(llama, config: ["bos_token": "<|begin_of_text|>", "add_bos_token": true])
    #expect(once.encode("a") == llama3.encode("a"))
    #expect(throws: TextCodecError.self) {
      try Tokenizer(root, config: ["bos_token": "<none>", "add_bos_token": true])
    }
  }

  @Test func idsOutsideOfTheVocabularyAreNoText() {
    for id in [Int32.min, -1, 4096, .max] {
      #expect(tokenizer.bytes(of: id) == nil && !tokenizer.isSpecial(id))
      #expect(tokenizer.decode([64, id, 65]) == "ab")
      var detokenizer = IncrementalDetokenizer(tokenizer)
      #expect(detokenizer.append(id) == "")
    }
  }

  @Test func emptyText() {
    #expect(tokenizer.encode("") == [] && tokenizer.encode(utf8: []) == [])
    #expect(tokenizer.decode([]) == "")
    #expect(llama3.encode("").count == 1)
  }

  @Test func invalidUTF8ComesBackByteForByte() {
    var random = SplitMix(seed: 1)
    let parts: [[UInt8]] = [
      [0xFF], [0xC0, 0x80], [0xE2, 0x82], [0xED, 0xA0, 0x80], [0xF0, 0x9F, 0x98], [0xF5, 0x80], [0x80],
      Array("héllo 你好 ".utf8),
      Array("x".utf8), Array("\n".utf8), Array("<|im_end|>".utf8), [0xF4, 0x90, 0x80, 0x80], [0xE2, 0x82, 0xAC],
      Array("'".utf8),
    ]
    for _ in 0..<2_000 {
      let bytes = (0..<Int.random(in: 1...8, using: &random)).flatMap { _ in
        parts.randomElement(using: &random) ?? []
      }
      for codec in [tokenizer, llama3] {
        let ids = codec.encode(utf8: bytes, addSpecialTokens: false)
        #expect(codec.decodeBytes(ids) == bytes)
        var detokenizer = IncrementalDetokenizer(codec, skipSpecialTokens: false)
        var joined = ids.reduce(into: "") { $0 += detokenizer.append($1) }
        joined += detokenizer.finish()
        #expect(joined.utf8.elementsEqual(String(decoding: bytes, as: UTF8.self).utf8))
      }
    }
    for byte in UInt8.min...UInt8.max { #expect(tokenizer.decodeBytes(tokenizer.encode(utf8: [byte])) == [byte]) }
  }

  @Test func validTextBesideInvalidBytesIsNormalised() {
    let ids = tokenizer.encode(utf8: [0xFF] + Array("e\u{301}".utf8) + [0xFE])
    #expect(tokenizer.decodeBytes(ids) == [0xFF] + Array("\u{E9}".utf8) + [0xFE])
  }

  @Test func detokenizerHoldsHalfCharacters() {
    var detokenizer = IncrementalDetokenizer(tokenizer)
    let ids = tokenizer.encode(utf8: Array("😀".utf8))
    #expect(ids.count > 1)
    for id in ids.dropLast() { #expect(detokenizer.append(id) == "") }
    #expect(detokenizer.append(ids.last ?? 0) == "😀")
    #expect(detokenizer.append(ids[0]) == "")
    #expect(detokenizer.finish() == "\u{FFFD}")
    #expect(detokenizer.finish() == "")
  }

  /// A word of n bytes must not cost n^2: 4 MB of one letter would take minutes.
  @Test(.timeLimit(.minutes(1))) func longWords() {
    let text = String(repeating: "ab", count: 200_000)
    let ids = tokenizer.encode(text)
    #expect(tokenizer.decode(ids) == text)
  }
}
