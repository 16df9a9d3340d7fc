import ArgumentParser

@main
struct Nibble: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "nibble",
    abstract: "An LLM inference engine whose KV cache is four bits wide.",
    subcommands: [
      GenerateCommand.self,
      ChatCommand.self,
      LogitsCommand.self,
      TokenizeCommand.self,
      DetokenizeCommand.self,
      InspectCommand.self,
      CalibrateCommand.self,
      FormatsCommand.self,
      CacheCommand.self,
      BenchCommand.self,
      PlanCommand.self,
      BackendsCommand.self,
      CheckLaunchCommand.self,
      EnvCommand.self,
    ]
  )

  /// What ArgumentParser begins a message with, as `main` does.
  static var _errorLabel: String { "error" }

  /// Runs the command; a failure becomes one line on stderr and an exit code of sysexits.h.
  static func main() async {
    do {
      var command = try parseAsRoot()
      if var command = command as? AsyncParsableCommand {
        try await command.run()
      } else {
        try command.run()
      }
    } catch {
      guard let code = FailureCode(of: error) else { exit(withError: error) }
      Console.error("error: \(error)")
      exit(withError: code.exitCode)
    }
  }
}
