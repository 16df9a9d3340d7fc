import ArgumentParser

struct BenchCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "bench", abstract: "Measure this machine with Nibble's own code.",
    subcommands: [
      BenchEngineCommand.self, BenchDecode.self, BenchPrefill.self, BenchAttentionCommand.self, BenchEncode.self,
      BenchBandwidthCommand.self, BenchAccuracyCommand.self,
    ])
}
