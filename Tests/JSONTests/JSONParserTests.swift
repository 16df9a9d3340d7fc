import JSON
import TestSupport
import Testing

@Suite struct JSONParserTests {
  @Test func readsEveryKindOfValue() throws {
    let value = try JSONValue.parse(
      #" { "a": [1, -2.5, 1e3, true, false, null], "b": {"c": "d"}, "empty": {}, "none": [] } "#)
    #expect(value["a"] == [1, -2.5, 1000.0, true, false, nil])
    #expect(value["b"]?["c"]?.stringValue == "d")
    #expect(value["empty"]?.objectValue?.isEmpty == true)
    #expect(value["none"]?.arrayValue?.isEmpty == true)
    #expect(value["missing"] == nil)
    #expect(value.objectValue?.keys == ["a", "b", "empty", "none"])
  }

  @Test(arguments: [
    ("0", JSONValue.integer(0)), ("-0", .integer(0)), ("9223372036854775807", .integer(.max)),
    ("-9223372036854775808", .integer(.min)), ("9223372036854775808", .number(0x1p63)),
    ("-9223372036854775809", .number(-0x1p63)), ("18446744073709551616", .number(0x1p64)),
    // transformers writes int(1e30) as model_max_length.
    ("1000000000000000019884624838656", .number(1e30)),
    ("0.1", .number(0.1)), ("-1.5E-3", .number(-0.0015)), ("1e+2", .number(100)),
    ("5e-324", .number(.leastNonzeroMagnitude)),
    ("1e-400", .number(0)), ("1.7976931348623157e308", .number(.greatestFiniteMagnitude)),
  ])
  func readsNumbers(text: String, expected: JSONValue) throws {
    #expect(try JSONValue.parse(text) == expected)
  }

  @Test func numbersConvert() throws {
    #expect(JSONValue.number(16).intValue == 16)
    #expect(JSONValue.number(16.5).intValue == nil)
    #expect(JSONValue.number(1e30).intValue == nil)
    #expect(JSONValue.integer(3).doubleValue == 3)
    #expect(JSONValue.string("3").intValue == nil)
  }

  @Test func readsEscapes() throws {
    let value = try JSONValue.parse(#""\"\\\/\b\f\n\r\t\u00e9\u20AC\ud83d\ude00\u0000""#)
    #expect(value.stringValue == "\"\\/\u{8}\u{C}\n\r\té€😀\0")
  }

  @Test func keepsTheBytesOfStrings() throws {
    let decomposed = "e\u{301}"
    let value = try JSONValue.parse("{\"\(decomposed)\": 1, \"\u{e9}\": 2}")
    #expect(value.objectValue?.count == 2)
    #expect(value[decomposed] == 1)
    #expect(value["\u{e9}"] == 2)
  }

  @Test func lastDuplicateWins() throws {
    let value = try JSONValue.parse(#"{"a": 1, "b": 2, "a": 3}"#)
    #expect(value["a"] == 3)
    #expect(value.objectValue?.keys == ["a", "b"])
    let text = Array(#"{"a": 1, "a": 3}"#.utf8)
    #expect(throws: JSONError.duplicateKey("a", offset: 9)) {
      try JSONValue.parse(bytes: text, refusesDuplicateKeys: true)
    }
  }

  @Test func largeObjectsFindEveryKey() throws {
    let members = (0..<5000).map { "\"k\($0)\": \($0)" }.joined(separator: ",")
    let value = try JSONValue.parse("{\(members), \"k17\": -1}")
    #expect(value.objectValue?.count == 5000)
    for index in [0, 1, 11, 12, 13, 4999] { #expect(value["k\(index)"]?.intValue == index) }
    #expect(value["k17"] == -1)
  }

  @Test func depthIsBounded() throws {
    func nested(_ depth: Int) -> String {
      String(repeating: "[", count: depth) + String(repeating: "]", count: depth)
    }
    #expect(throws: Never.self) { try JSONValue.parse(nested(128)) }
    #expect(throws: JSONError.tooDeep(maximum: 128, offset: 128)) { try JSONValue.parse(nested(129)) }
    #expect(throws: JSONError.tooDeep(maximum: 512, offset: 512)) {
      try JSONValue.parse(nested(100_000), maximumDepth: .max)
    }
    #expect(throws: JSONError.tooDeep(maximum: 128, offset: 640)) {
      try JSONValue.parse(String(repeating: #"{"a":"#, count: 1000))
    }
  }

  @Test(arguments: [
    ("", JSONError.unexpectedEnd(offset: 0, expected: "a value")),
    ("{", .unexpectedEnd(offset: 1, expected: "a key in quotes")),
    (#"{"a""#, .unexpectedEnd(offset: 4, expected: "':' after a key")),
    ("[1,", .unexpectedEnd(offset: 3, expected: "a value")),
    ("[1", .unexpectedEnd(offset: 2, expected: "',' or ']'")),
    (#""abc"#, .unexpectedEnd(offset: 4, expected: "the closing quote of a string")),
    (#""\"#, .unexpectedEnd(offset: 2, expected: "an escaped character")),
    (#""\u12"#, .unexpectedEnd(offset: 5, expected: "four hexadecimal digits")),
    ("tru", .unexpectedEnd(offset: 3, expected: "'true'")),
    ("-", .unexpectedEnd(offset: 1, expected: "a digit")),
    ("1.", .unexpectedEnd(offset: 2, expected: "a digit")),
    ("1e+", .unexpectedEnd(offset: 3, expected: "a digit")),
    ("[1,]", .unexpectedByte(UInt8(ascii: "]"), offset: 3, expected: "a value")),
    (#"{"a":1,}"#, .unexpectedByte(UInt8(ascii: "}"), offset: 7, expected: "a key in quotes")),
    ("01", .unexpectedByte(UInt8(ascii: "1"), offset: 1, expected: "no digit after a leading zero")),
    ("+1", .unexpectedByte(UInt8(ascii: "+"), offset: 0, expected: "a value")),
    (".5", .unexpectedByte(UInt8(ascii: "."), offset: 0, expected: "a value")),
    ("NaN", .unexpectedByte(UInt8(ascii: "N"), offset: 0, expected: "a value")),
    ("1 2", .unexpectedByte(UInt8(ascii: "2"), offset: 2, expected: "the end of the document")),
    ("'a'", .unexpectedByte(UInt8(ascii: "'"), offset: 0, expected: "a value")),
    ("1e999", .numberOutOfRange(offset: 0)), ("[-1e999]", .numberOutOfRange(offset: 1)),
    (#""\x41""#, .invalidEscape(offset: 1)), (#""\u12G4""#, .invalidEscape(offset: 1)),
    (#""\ud83d""#, .loneSurrogate(offset: 1)), (#""\ud83dx""#, .loneSurrogate(offset: 1)),
    (#""\ud83d\u0041""#, .loneSurrogate(offset: 1)), (#""\ude00""#, .loneSurrogate(offset: 1)),
    ("\"a\nb\"", .controlCharacter(10, offset: 2)),
  ])
  func refusesWithOneClearError(text: String, expected: JSONError) {
    #expect(throws: expected) { try JSONValue.parse(text) }
    #expect(!expected.description.isEmpty)
  }

  @Test(
    arguments: [
      [0xFF], [0xC3], [0xC0, 0x80], [0xED, 0xA0, 0x80], [0xF4, 0x90, 0x80, 0x80], [0xE2, 0x82],
    ] as [[UInt8]])
  func refusesInvalidUTF8(bytes: [UInt8]) {
    let quote = UInt8(ascii: "\"")
    #expect(throws: JSONError.invalidUTF8(offset: 0)) { try JSONValue.parse(bytes: [quote] + bytes + [quote]) }
    #expect(throws: JSONError.invalidUTF8(offset: 0)) {
      try JSONValue.parse(bytes: [quote] + Array("\\n".utf8) + bytes + [quote])
    }
    #expect(throws: JSONError.self) { try JSONValue.parse(bytes: bytes) }
  }

  @Test func unreadableFilesAreNamed() {
    #expect(throws: JSONError.unreadableFile(path: "/no/such/file.json", reason: "No such file or directory")) {
      try JSONValue.parse(contentsOf: "/no/such/file.json")
    }
    #expect(throws: JSONError.unreadableFile(path: "/", reason: "not a regular file")) {
      try JSONValue.parse(contentsOf: "/")
    }
  }

  /// Any damage to a document gives a value or a `JSONError`, and what parses survives a round trip.
  @Test func mutationsNeverTrap() throws {
    let seed = Array(
      #"{"model_type":"llama","rope":{"factor":8.0,"type":"llama3"},"ids":[1,2,-3,1e5,0.25],"s":"a\u00e9\ud83d\ude00\n€","t":true,"n":null}"#
        .utf8)
    let alphabet = Array(#"{}[]:,"\/-+.eE0123456789utfn "#.utf8) + [0, 10, 0x1F, 0x80, 0xC3, 0xE2, 0xF0, 0xFF]
    var generator = SplitMix(seed: 7)
    var parsed = 0
    for _ in 0..<20_000 {
      var bytes = seed
      for _ in 0...Int.random(in: 0...3, using: &generator) {
        let place = Int.random(in: 0..<bytes.count, using: &generator)
        switch Int.random(in: 0...3, using: &generator) {
        case 0: bytes[place] = alphabet.randomElement(using: &generator) ?? 0
        case 1: bytes.insert(alphabet.randomElement(using: &generator) ?? 0, at: place)
        case 2: bytes.remove(at: place)
        default: bytes.removeLast(min(bytes.count - 1, Int.random(in: 0...8, using: &generator)))
        }
      }
      do throws(JSONError) {
        let value = try JSONValue.parse(bytes: bytes)
        let again = try JSONValue.parse(bytes: value.serializedBytes())
        #expect(value == again)
        parsed += 1
      } catch {
        #expect(!error.description.isEmpty)
      }
    }
    #expect(parsed > 100 && parsed < 20_000)
  }
}
