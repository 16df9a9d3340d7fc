import Checkpoints

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// The two output streams: stdout carries results only, stderr everything else.
enum Console {
  /// Writes text to stdout as it is, at once. Results that can't be written end the program.
  static func write(_ text: String) { write(bytes: Array(text.utf8)) }

  /// Writes bytes, which need not be UTF-8, to stdout.
  static func write(bytes: [UInt8]) {
    guard bytes.withUnsafeBytes({ put($0, to: 1) }) else {
      error("error: can't write standard output: \(String(cString: strerror(errno)))")
      exit(FailureCode.unavailable.rawValue)
    }
  }

  /// Writes a line to stderr.
  static func error(_ line: String) { errorText(line + "\n") }

  /// Writes text to stderr as it is.
  static func errorText(_ text: String) { _ = Array(text.utf8).withUnsafeBytes { put($0, to: 2) } }

  static var errorIsTerminal: Bool { isatty(2) == 1 }
  static var inputIsTerminal: Bool { isatty(0) == 1 }

  /// Standard input to its end.
  /// - Throws: `CommandFailure` for what can't be read, and for bytes that are not UTF-8.
  static func readAll() throws -> String { try text(readInput(), of: "standard input") }

  /// Standard input to its end, whatever its bytes.
  /// - Throws: `CommandFailure` for what can't be read.
  static func readInput() throws -> [UInt8] { try bytes(from: 0, name: "standard input") }

  /// A text file.
  /// - Throws: `CommandFailure` for a file that can't be read, and for bytes that are not UTF-8.
  static func readFile(_ path: String) throws -> String { try text(readBytes(path), of: "'\(path)'") }

  /// - Throws: `CommandFailure` for a file that can't be read.
  static func readBytes(_ path: String) throws -> [UInt8] {
    let file = open(path, O_RDONLY | O_CLOEXEC)
    guard file >= 0 else {
      throw CommandFailure(.data, "can't read '\(path)': \(String(cString: strerror(errno)))")
    }
    defer { close(file) }
    return try bytes(from: file, name: "'\(path)'")
  }

  /// Writes a file; it appears under its name only when it is complete.
  /// - Throws: `CheckpointError.unwritable`.
  static func writeFile(_ text: String, to path: String) throws(CheckpointError) {
    let file = try WholeFile(path: path)
    try file.append(Array(text.utf8))
    try file.finish()
  }

  private static func bytes(from file: Int32, name: String) throws -> [UInt8] {
    var bytes: [UInt8] = []
    var buffer = [UInt8](repeating: 0, count: 65536)
    while true {
      let count = read(file, &buffer, buffer.count)
      if count < 0, errno == EINTR { continue }
      guard count >= 0 else { throw CommandFailure(.data, "can't read \(name): \(String(cString: strerror(errno)))") }
      guard count > 0 else { return bytes }
      bytes += buffer[..<count]
    }
  }

  private static func text(_ bytes: [UInt8], of name: String) throws -> String {
    guard let text = String(validating: bytes, as: UTF8.self) else {
      throw CommandFailure(.data, "expected \(name) to be UTF-8 text, found other bytes; convert it first")
    }
    return text
  }

  /// - Returns: whether all could be written.
  private static func put(_ bytes: UnsafeRawBufferPointer, to descriptor: Int32) -> Bool {
    var offset = 0
    while offset < bytes.count, let start = bytes.baseAddress {
      let written = Glibc.write(descriptor, start + offset, bytes.count - offset)
      if written < 0, errno == EINTR { continue }
      guard written > 0 else { return false }
      offset += written
    }
    return true
  }
}

/// A bar on stderr while something large loads; silent where stderr is no terminal.
struct ProgressBar {
  let label: String
  private var lastPercent = -1

  init(_ label: String) { self.label = label }

  mutating func update(_ share: Double) {
    guard Console.errorIsTerminal else { return }
    let percent = Int(share * 100)
    guard percent != lastPercent else { return }
    lastPercent = percent
    let filled = percent * 30 / 100
    let bar = String(repeating: "#", count: filled) + String(repeating: ".", count: 30 - filled)
    Console.errorText("\r\(label) [\(bar)] \(percent)%" + (percent >= 100 ? "\r\u{1B}[K" : ""))
  }
}
