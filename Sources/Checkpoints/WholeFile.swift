#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// A file that appears under its name only when it is complete.
///
/// It is written beside its place and renamed. A place that is there and no regular file, such as /dev/stdout or a link, is written to
/// directly: whoever may rename a file over a device takes the device away from the whole machine.
package struct WholeFile: ~Copyable {
  private let path: String
  /// What is renamed in the end; nil where the place itself is written to.
  private let temporaryPath: String?
  private let file: Int32

  /// - Throws: `CheckpointError.unwritable`.
  package init(path: String) throws(CheckpointError) {
    self.path = path
    var status = stat()
    let isReplaced = lstat(path, &status) != 0 || (status.st_mode & S_IFMT) == S_IFREG
    temporaryPath = isReplaced ? "\(path).\(getpid()).part" : nil
    file = open(temporaryPath ?? path, O_WRONLY | O_TRUNC | O_CLOEXEC | (isReplaced ? O_CREAT : 0), 0o644)
    guard file >= 0 else { throw Self.unwritable(path) }
  }

  deinit {
    close(file)
    if let temporaryPath { unlink(temporaryPath) }
  }

  /// - Throws: `CheckpointError.unwritable`.
  package func append(_ bytes: UnsafeRawBufferPointer) throws(CheckpointError) {
    var done = 0
    while done < bytes.count, let base = bytes.baseAddress {
      let count = write(file, base + done, bytes.count - done)
      if count < 0, errno == EINTR { continue }
      guard count > 0 else { throw Self.unwritable(path) }
      done += count
    }
  }

  package func append(_ bytes: [UInt8]) throws(CheckpointError) {
    try bytes.withUnsafeBufferPointer { (bytes) throws(CheckpointError) in try append(UnsafeRawBufferPointer(bytes)) }
  }

  /// Gives the complete file its name.
  /// - Throws: `CheckpointError.unwritable`.
  package consuming func finish() throws(CheckpointError) {
    // What the system couldn't write it may tell no earlier than here.
    if let temporaryPath {
      guard fsync(file) == 0, rename(temporaryPath, path) == 0 else { throw Self.unwritable(path) }
    }
  }

  private static func unwritable(_ path: String) -> CheckpointError {
    .unwritable(path: path, reason: String(cString: strerror(errno)))
  }
}
