import TestSupport

/// A safetensors file of a header and zeros.
func tensorFile(header: String, dataBytes: Int, claimedLength: UInt64? = nil) -> [UInt8] {
  let text = Array(header.utf8)
  let length = (claimedLength ?? UInt64(text.count)).littleEndian
  return withUnsafeBytes(of: length) { Array($0) } + text + [UInt8](repeating: 0, count: dataBytes)
}

extension SplitMix {
  /// Changes a few bytes: replaced by others of the file or by trouble-makers, inserted, removed, numbers blown up.
  mutating func mutate(_ bytes: inout [UInt8]) {
    let trouble = Array(#"{}[]:,"-.e019"#.utf8) + [0, 0x80, 0xFF]
    let words = ["null", "-1", "0", "1e308", "9223372036854775807", "18446744073709551616", "[]", "{}", "\"\"", "0.5"]
    for _ in 0...Int.random(in: 0...3, using: &self) where !bytes.isEmpty {
      let place = Int.random(in: 0..<bytes.count, using: &self)
      switch Int.random(in: 0...5, using: &self) {
      case 0: bytes[place] = trouble.randomElement(using: &self) ?? 0
      case 1: bytes.insert(trouble.randomElement(using: &self) ?? 0, at: place)
      case 2: bytes.remove(at: place)
      case 3: bytes.removeLast(min(bytes.count - 1, Int.random(in: 0...16, using: &self)))
      default:
        // Replaces the value that starts behind the next colon.
        guard let colon = bytes[place...].firstIndex(of: UInt8(ascii: ":")),
          let end = bytes[colon...].firstIndex(where: { $0 == UInt8(ascii: ",") || $0 == UInt8(ascii: "}") })
        else { continue }
        bytes.replaceSubrange(colon + 1..<end, with: (words.randomElement(using: &self) ?? "").utf8)
      }
    }
  }
}
