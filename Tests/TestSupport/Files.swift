#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

public struct FileFailure: Error, CustomStringConvertible {
  public let description: String

  init(_ action: String, _ path: String) {
    description = "can't \(action) \(path): \(String(cString: strerror(errno)))"
  }
}

public func readBytes(_ path: String) throws -> [UInt8] {
  guard let file = fopen(path, "rb") else { throw FileFailure("read", path) }
  defer { fclose(file) }
  var bytes: [UInt8] = []
  var buffer = [UInt8](repeating: 0, count: 65_536)
  while case let count = fread(&buffer, 1, buffer.count, file), count > 0 { bytes += buffer[..<count] }
  return bytes
}

public func readText(_ path: String) throws -> String { String(decoding: try readBytes(path), as: UTF8.self) }

public func writeFile(_ bytes: [UInt8], to path: String) throws {
  guard let file = fopen(path, "wb") else { throw FileFailure("write", path) }
  let written = fwrite(bytes, 1, bytes.count, file)
  guard fclose(file) == 0, written == bytes.count else { throw FileFailure("write", path) }
}

public func writeFile(_ text: String, to path: String) throws { try writeFile(Array(text.utf8), to: path) }

/// A folder that is gone, with the files in it, when its owner is.
public final class TemporaryFolder: Sendable {
  public let path: String

  public init() throws {
    var template = Array("/tmp/nibble-tests-XXXXXX".utf8CString)
    guard let made = mkdtemp(&template) else { throw FileFailure("make", "a folder in /tmp") }
    path = String(cString: made)
  }

  deinit {
    if let folder = opendir(path) {
      while let entry = readdir(folder) {
        let name = withUnsafePointer(to: &entry.pointee.d_name) {
          $0.withMemoryRebound(to: CChar.self, capacity: 256) { String(cString: $0) }
        }
        // Fails for "." and "..", which are folders.
        unlink("\(path)/\(name)")
      }
      closedir(folder)
    }
    rmdir(path)
  }

  public func file(_ name: String) -> String { "\(path)/\(name)" }

  /// - Returns: the file's path.
  @discardableResult
  public func write(_ name: String, _ bytes: [UInt8]) throws -> String {
    try writeFile(bytes, to: file(name))
    return file(name)
  }

  @discardableResult
  public func write(_ name: String, _ text: String) throws -> String { try write(name, Array(text.utf8)) }
}
