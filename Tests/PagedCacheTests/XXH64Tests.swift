import PagedCache
import TestSupport
import Testing

@Suite struct XXH64Tests {
  /// Published digests of the reference implementation, seed 0.
  @Test(
    arguments: [
      ("", 0xEF46_DB37_51D8_E999), ("abc", 0x44BC_2CF5_AD77_0999),
      ("Nobody inspects the spammish repetition", 0xFBCE_A83C_8A37_8BF1),
    ] as [(String, UInt64)])
  func equalsTheReference(text: String, digest: UInt64) {
    #expect(Array(text.utf8).withUnsafeBytes { XXH64.hash($0) } == digest)
  }

  @Test func piecesDoNotMatter() {
    let bytes = (0..<1000).map { UInt8(truncatingIfNeeded: $0 * 7) }
    let whole = bytes.withUnsafeBytes { XXH64.hash($0) }
    var random = SplitMix(seed: 9)
    for _ in 0..<50 {
      var state = XXH64()
      var start = 0
      while start < bytes.count {
        let end = min(bytes.count, start + Int.random(in: 0...70, using: &random))
        Array(bytes[start..<end]).withUnsafeBytes { state.update($0) }
        start = end
      }
      #expect(state.digest() == whole)
    }
  }
}
