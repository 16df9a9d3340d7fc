import TestSupport

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

/// Runs the `nibble` executable that was built beside the tests.
struct Command {
  let status: Int32
  let output: String
  let errors: String

  /// - Parameters:
  ///   - input: standard input.
  ///   - directory: the working directory; nil keeps the tests' own.
  ///   - outputPath: where stdout goes instead of into `output`.
  static func run(
    _ arguments: [String], input: [UInt8] = [], directory: String? = nil, outputPath: String? = nil
  ) throws -> Command {
    let folder = try TemporaryFolder()
    try folder.write("in", input)

    var actions = posix_spawn_file_actions_t()
    posix_spawn_file_actions_init(&actions)
    defer { posix_spawn_file_actions_destroy(&actions) }
    posix_spawn_file_actions_addopen(&actions, 0, folder.file("in"), O_RDONLY, 0)
    posix_spawn_file_actions_addopen(&actions, 1, outputPath ?? folder.file("out"), O_WRONLY | O_CREAT, 0o600)
    posix_spawn_file_actions_addopen(&actions, 2, folder.file("err"), O_WRONLY | O_CREAT, 0o600)

    // The shell changes the folder; spawning has no portable way to.
    let line =
      directory.map { ["/bin/sh", "-c", "cd \"$0\" && exec \"$@\"", $0, executable] } ?? [executable]
    var words = (line + arguments).map { strdup($0) } + [nil]
    defer { for word in words { free(word) } }
    var process = pid_t()
    let failure = posix_spawn(&process, line[0], &actions, nil, &words, environ)
    guard failure == 0 else {
      throw Failure(reason: "can't start \(executable): \(String(cString: strerror(failure)))")
    }
    var status: Int32 = 0
    while waitpid(process, &status, 0) < 0, errno == EINTR {}
    // A signal counts as 128 plus its number, as in a shell.
    let code = status & 0x7F == 0 ? status >> 8 & 0xFF : 128 + status & 0x7F
    return Command(
      status: code, output: outputPath == nil ? try readText(folder.file("out")) : "",
      errors: try readText(folder.file("err")))
  }

  struct Failure: Error { let reason: String }

  /// `nibble` beside the test bundle, or beside the runner that loads it.
  private static let executable: String = {
    var path = CommandLine.arguments.first ?? ""
    if let resolved = realpath("/proc/self/exe", nil) {
      path = String(cString: resolved)
      free(resolved)
    }
    var folder = path
    while let slash = folder.lastIndex(of: "/") {
      folder = String(folder[..<slash])
      if access("\(folder)/nibble", X_OK) == 0 { return "\(folder)/nibble" }
    }
    return "nibble"
  }()
}
