#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

extension JSONValue {
  /// Reads and parses a file.
  /// - Throws: `JSONError`; `.unreadableFile` names the path and the system's reason.
  public static func parse(
    contentsOf path: String, maximumDepth: Int = 128, refusesDuplicateKeys: Bool = false
  ) throws(JSONError) -> JSONValue {
    try parse(bytes: try read(path), maximumDepth: maximumDepth, refusesDuplicateKeys: refusesDuplicateKeys)
  }

  /// The same; nil where there is no such file.
  public static func parse(ifPresent path: String) throws(JSONError) -> JSONValue? {
    if isMissing(path) { return nil }
    return try parse(contentsOf: path)
  }

  /// Whether there is no such file; one that can't be read is not missing.
  package static func isMissing(_ path: String) -> Bool {
    var status = stat()
    return stat(path, &status) != 0 && errno == ENOENT
  }

  /// The bytes of a whole regular file, at most 1 GiB.
  package static func read(_ path: String) throws(JSONError) -> [UInt8] {
    func failure(_ code: Int32) -> JSONError { .unreadableFile(path: path, reason: String(cString: strerror(code))) }
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else { throw failure(errno) }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw failure(errno) }
    guard status.st_mode & S_IFMT == S_IFREG else { throw .unreadableFile(path: path, reason: "not a regular file") }
    guard status.st_size <= 1 << 30 else { throw .unreadableFile(path: path, reason: "larger than 1 GiB") }
    let size = Int(status.st_size)
    var code: Int32 = 0
    let bytes = [UInt8](unsafeUninitializedCapacity: size) { buffer, count in
      while count < size, let start = buffer.baseAddress {
        let got = pread(file, start + count, size - count, off_t(count))
        if got < 0, errno == EINTR { continue }
        if got < 0 { code = errno }
        if got <= 0 { break }
        count += got
      }
    }
    if code != 0 { throw failure(code) }
    return bytes
  }
}
