#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The file of a saved prefix, little-endian:
///
///     "NIBBLEKV" | u32 version | u32 identity bytes | u64 token count | u64 page bytes | u64 page count
///     | identity, lines of "name=value" | token ids, i32 each | pages | u64 XXH64 of all before it
extension SavedPrefix {
  static let magic = Array("NIBBLEKV".utf8)
  static let version: UInt32 = 1
  static let headerBytes = 40

  /// Writes to a temporary file beside `path`, syncs it and renames it, so that `path` holds all or nothing. A path
  /// that is there and no regular file, a device or a link, is written to directly: renaming would take a device away.
  /// - Throws: `PagedCacheError.fileFailed`.
  public func write(to path: String, identity: CacheIdentity) throws(PagedCacheError) {
    var status = stat()
    let isSpecial = lstat(path, &status) == 0 && (status.st_mode & S_IFMT) != S_IFREG
    let temporary = isSpecial ? path : "\(path).partial-\(getpid())"
    let file = open(temporary, O_WRONLY | O_TRUNC | (isSpecial ? 0 : O_CREAT), 0o644)
    guard file >= 0 else { throw Self.failed("create", temporary) }
    do throws(PagedCacheError) {
      try write(to: file, path: temporary, identity: identity)
      if !isSpecial, fsync(file) != 0 { throw Self.failed("write", temporary) }
    } catch {
      close(file)
      if !isSpecial { unlink(temporary) }
      throw error
    }
    guard close(file) == 0 else { throw Self.failed("write", temporary) }
    if !isSpecial, rename(temporary, path) != 0 {
      let error = Self.failed("rename", temporary)
      unlink(temporary)
      throw error
    }
  }

  private func write(to file: Int32, path: String, identity: CacheIdentity) throws(PagedCacheError) {
    let identityText = Array(identity.text.utf8)
    var head = Self.magic
    Self.append(Self.version, to: &head)
    Self.append(UInt32(identityText.count), to: &head)
    Self.append(UInt64(tokens.count), to: &head)
    Self.append(UInt64(pageBytes), to: &head)
    Self.append(UInt64(pages.count / pageBytes), to: &head)
    head += identityText
    for token in tokens { Self.append(UInt32(bitPattern: token), to: &head) }
    var checksum = XXH64()
    head.withUnsafeBytes { checksum.update($0) }
    checksum.update(UnsafeRawBufferPointer(pages))
    var trailer: [UInt8] = []
    Self.append(checksum.digest(), to: &trailer)
    let error =
      head.withUnsafeBytes { Self.writeAll($0, to: file, path: path) }
      ?? Self.writeAll(UnsafeRawBufferPointer(pages), to: file, path: path)
      ?? trailer.withUnsafeBytes { Self.writeAll($0, to: file, path: path) }
    if let error { throw error }
  }

  /// Reads a file that `write(to:identity:)` wrote for an equal identity.
  /// - Throws: `PagedCacheError.fileFailed` for what the system refuses, `.fileRejected` for foreign, truncated or damaged
  ///   files, `.identityMismatch` for another model, recipe or layout.
  public static func read(
    from path: String, expecting identity: CacheIdentity, pageSize: Int, pageBytes: Int
  ) throws(PagedCacheError) -> SavedPrefix {
    let file = open(path, O_RDONLY)
    guard file >= 0 else { throw failed("open", path) }
    defer { close(file) }
    var status = stat()
    guard fstat(file, &status) == 0 else { throw failed("read", path) }
    let fileBytes = Int(status.st_size)
    guard fileBytes >= headerBytes + 8 else {
      throw .fileRejected(path: path, reason: "expected at least \(headerBytes + 8) bytes, found \(fileBytes)")
    }
    var checksum = XXH64()
    let header = try readBytes(headerBytes, from: file, path: path, checksum: &checksum)
    guard header.starts(with: magic) else {
      throw .fileRejected(path: path, reason: "expected it to start with NIBBLEKV")
    }
    let fileVersion = UInt32(truncatingIfNeeded: word(header, at: 8, bytes: 4))
    guard fileVersion == version else {
      throw .fileRejected(path: path, reason: "expected file version \(version), found \(fileVersion)")
    }
    let identityBytes = word(header, at: 12, bytes: 4)
    let (tokenCount, recordBytes, pageCount) = (
      word(header, at: 16, bytes: 8), word(header, at: 24, bytes: 8), word(header, at: 32, bytes: 8)
    )
    // Bounded by the file's size before anything is allocated, so that a lying header costs nothing.
    let limit = UInt64(fileBytes)
    guard identityBytes <= limit, tokenCount > 0, tokenCount <= limit / 4, pageCount <= limit, recordBytes <= limit,
      pageCount.multipliedReportingOverflow(by: recordBytes).overflow == false,
      identityBytes + tokenCount * 4 <= limit, pageCount * recordBytes <= limit,
      UInt64(headerBytes) + identityBytes + tokenCount * 4 + pageCount * recordBytes + 8 == limit
    else {
      throw .fileRejected(path: path, reason: "its \(fileBytes) bytes are not what its header announces (truncated?)")
    }
    let identityText = String(
      decoding: try readBytes(Int(identityBytes), from: file, path: path, checksum: &checksum), as: UTF8.self)
    if let (field, expected, found) = identity.firstDifference(from: identityText) {
      throw .identityMismatch(path: path, field: field, expected: expected, found: found)
    }
    guard recordBytes == UInt64(pageBytes), pageCount == (tokenCount + UInt64(pageSize) - 1) / UInt64(pageSize) else {
      throw .fileRejected(
        path: path, reason: "\(pageCount) pages of \(recordBytes) bytes don't fit \(tokenCount) tokens")
    }
    let tokenBytes = try readBytes(Int(tokenCount) * 4, from: file, path: path, checksum: &checksum)
    let tokens = (0..<Int(tokenCount)).map { Int32(truncatingIfNeeded: word(tokenBytes, at: $0 * 4, bytes: 4)) }
    let saved = try SavedPrefix(tokens: tokens, pageSize: pageSize, pageBytes: pageBytes)
    try readAll(into: saved.pages, from: file, path: path)
    checksum.update(UnsafeRawBufferPointer(saved.pages))
    let expected = checksum.digest()
    let found = word(try readBytes(8, from: file, path: path, checksum: &checksum), at: 0, bytes: 8)
    guard found == expected else {
      throw .fileRejected(
        path: path,
        reason:
          "expected checksum \(String(found, radix: 16)), found \(String(expected, radix: 16)): its bytes are damaged")
    }
    return saved
  }

  // MARK: Bytes

  private static func append(_ value: some FixedWidthInteger, to bytes: inout [UInt8]) {
    withUnsafeBytes(of: value.littleEndian) { bytes.append(contentsOf: $0) }
  }

  private static func word(_ bytes: [UInt8], at offset: Int, bytes count: Int) -> UInt64 {
    (0..<count).reduce(0) { $0 | UInt64(bytes[offset + $1]) << UInt64(8 * $1) }
  }

  private static func readBytes(
    _ count: Int, from file: Int32, path: String, checksum: inout XXH64
  ) throws(PagedCacheError) -> [UInt8] {
    var bytes = [UInt8](repeating: 0, count: count)
    var error: PagedCacheError?
    bytes.withUnsafeMutableBytes { buffer in
      do throws(PagedCacheError) { try readAll(into: buffer, from: file, path: path) } catch let caught {
        error = caught
      }
      checksum.update(UnsafeRawBufferPointer(buffer))
    }
    if let error { throw error }
    return bytes
  }

  private static func readAll(
    into buffer: UnsafeMutableRawBufferPointer, from file: Int32, path: String
  ) throws(PagedCacheError) {
    var done = 0
    while done < buffer.count, let start = buffer.baseAddress {
      let count = systemRead(file, start + done, min(buffer.count - done, 1 << 30))
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw failed("read", path) }
      guard count > 0 else { throw .fileRejected(path: path, reason: "it ends early") }
      done += count
    }
  }

  private static func writeAll(_ buffer: UnsafeRawBufferPointer, to file: Int32, path: String) -> PagedCacheError? {
    var done = 0
    while done < buffer.count, let start = buffer.baseAddress {
      let count = systemWrite(file, start + done, min(buffer.count - done, 1 << 30))
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { return failed("write", path) }
      done += count
    }
    return nil
  }

  private static func failed(_ action: String, _ path: String) -> PagedCacheError {
    .fileFailed(action: action, path: path, reason: String(cString: strerror(errno)))
  }
}
