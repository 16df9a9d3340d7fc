import Checkpoints
import JSON
import TestSupport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The folder of a model that ships in the repository.
func shippedModel(_ name: String, file: String = #filePath) -> String {
  var parts = file.split(separator: "/", omittingEmptySubsequences: false)
  parts.removeLast(3)
  return parts.joined(separator: "/") + "/Models/\(name)"
}

/// A directory that disappears with its last reference.
final class TemporaryDirectory {
  let path: String

  init() {
    var generator = SystemRandomNumberGenerator()
    path = "/tmp/nibble-tests-\(getpid())-\(generator.next())"
    mkdir(path, 0o755)
  }

  deinit {
    if let directory = opendir(path) {
      while let entry = readdir(directory) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        if name != ".", name != ".." { unlink("\(path)/\(name)") }
      }
      closedir(directory)
    }
    rmdir(path)
  }

  @discardableResult
  func write(_ name: String, _ bytes: [UInt8]) -> String {
    let path = "\(path)/\(name)"
    let file = open(path, O_WRONLY | O_CREAT | O_TRUNC, 0o644)
    _ = bytes.withUnsafeBytes { Glibc.write(file, $0.baseAddress, $0.count) }
    close(file)
    return path
  }

  @discardableResult
  func write(_ name: String, _ text: String) -> String { write(name, Array(text.utf8)) }
}

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
