@_spi(_Unicode) import Swift
import TestSupport
import Testing
import TextCodec

@Suite struct NormalizationTests {
  /// Normalising spans gives what normalising the whole gives.
  private func check(_ text: String) {
    var expected: [UInt8] = []
    for scalar in text._nfc { expected += Array(String(scalar).utf8) }
    #expect(
      NormalizationFormC.normalize(text) == expected, "\(text.unicodeScalars.map { String($0.value, radix: 16) })")
  }

  @Test func everyCharacterBetweenOthers() {
    for value in UInt32(0)...0x2FFFF {
      guard let scalar = Unicode.Scalar(value) else { continue }
      // Behind a letter that joins marks, before a mark, and behind a Hangul syllable that takes a final.
      if value % 7 == 0 || !(0x3400...0xD7A3).contains(value) && value < 0x11000 {
        check("e\(scalar)\u{301}\u{AC00}\(scalar)\u{1112}")
      }
    }
  }

  @Test func randomTexts() {
    var random = SplitMix(seed: 21)
    let ranges: [ClosedRange<UInt32>] = [
      0x41...0x5A, 0xC0...0x17F, 0x300...0x345, 0x390...0x3C9, 0x400...0x487, 0x5D0...0x5EA, 0x900...0x9FF,
      0x1100...0x11FF,
      0x1E00...0x1FFF, 0x2000...0x21FF, 0x3040...0x30FF, 0x4E00...0x4E20, 0xAC00...0xAC40, 0xF900...0xFAFF,
      0x1D150...0x1D1C0,
      0x2F800...0x2F820,
    ]
    for _ in 0..<5_000 {
      var text = ""
      for _ in 0..<Int.random(in: 1...10, using: &random) {
        let range = ranges[Int.random(in: 0..<ranges.count, using: &random)]
        if let scalar = Unicode.Scalar(UInt32.random(in: range, using: &random)) { text.unicodeScalars.append(scalar) }
      }
      check(text)
    }
  }

  @Test func invalidBytesStayAndSeparate() {
    let bytes: [UInt8] = [0xFF] + Array("e\u{301}".utf8) + [0xCC] + Array("\u{301}".utf8) + [0xE2, 0x82]
    let expected: [UInt8] = [0xFF] + Array("\u{E9}".utf8) + [0xCC] + Array("\u{301}".utf8) + [0xE2, 0x82]
    #expect(bytes.withUnsafeBufferPointer { NormalizationFormC.normalize($0) } == expected)
    #expect(Array("plain 你好".utf8).withUnsafeBufferPointer { NormalizationFormC.normalize($0) } == nil)
  }
}
