import ArgumentParser
import Checkpoints
import JSON
import LaunchRules

/// `nibble check-launch`: whether another engine's command line would start, without loading anything.
struct CheckLaunchCommand: ParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "check-launch",
    abstract:
      "Say whether an SGLang command line with a 4-bit KV cache starts, degrades or refuses, and what would work.",
    usage: "nibble check-launch --engine sglang [--mla | --mha | --model DIR] [--compute-capability 10.0] -- ARGS...",
    discussion: "Exit code 0 if it starts (with or without warnings), 1 if it refuses.")

  @Option(help: "The engine: sglang.")
  var engine = "sglang"
  @Option(help: "Version of its rules: \(SGLangVersion.known.map(\.name).joined(separator: " or ")).")
  var engineVersion = "0.5.23"
  @Option(help: "Model folder that says whether attention is MLA or MHA.")
  var model: String?
  @Flag(help: "The model uses latent attention (DeepSeek).")
  var mla = false
  @Flag(help: "The model uses multi-head or grouped-query attention.")
  var mha = false
  @Option(help: "Of the GPU, such as 9.0 (Hopper), 10.0 (B200) or 12.0.")
  var computeCapability: String?
  @Flag(help: "Print one JSON object.")
  var json = false
  @Flag(help: "Print the rules of every known version, and judge nothing.")
  var rules = false
  @Argument(parsing: .postTerminator, help: "The command line to judge.")
  var arguments: [String] = []

  func run() throws {
    guard engine == "sglang" else {
      throw CommandFailure(.usage, "unknown engine '\(engine)'; expected sglang")
    }
    guard let version = SGLangVersion.named(engineVersion) else {
      let known = SGLangVersion.known.map(\.name).joined(separator: " or ")
      throw CommandFailure(.usage, "unknown version '\(engineVersion)' of sglang; expected \(known)")
    }
    if rules { return Console.write(SGLangVersion.table + "\n") }
    let launch = LaunchArguments(arguments)
    let verdict = SGLangCheck(version: version, context: try context(launch)).judge(launch)
    Console.write((json ? Self.json(verdict).serialized(pretty: true) : verdict.text) + "\n")
    if verdict.severity == .refuses { throw ExitCode(1) }
  }

  private func context(_ launch: LaunchArguments) throws -> LaunchContext {
    var configuration: ModelConfiguration?
    if let model {
      configuration = try ModelConfiguration(directory: model)
    } else if !mla, !mha, let path = launch["model-path"] ?? launch["model"] {
      configuration = try? ModelConfiguration(directory: path)
    }
    guard mla != mha || configuration != nil else {
      throw CommandFailure(.usage, "expected one of --mla, --mha or --model DIR: the rules differ by kind of attention")
    }
    return LaunchContext(
      usesMLA: configuration?.kvGeometry.isMLA ?? mla, computeCapability: try capability(),
      headDimension: configuration.flatMap { $0.mla == nil ? $0.headDimension : nil })
  }

  private func capability() throws -> Int? {
    guard let computeCapability else { return nil }
    let parts = computeCapability.split(separator: ".", omittingEmptySubsequences: false).map { Int($0) }
    guard parts.count == 2, let major = parts[0], let minor = parts[1], (1...99).contains(major),
      (0...9).contains(minor)
    else {
      throw CommandFailure(
        .usage, "expected --compute-capability as MAJOR.MINOR, such as 10.0, found '\(computeCapability)'")
    }
    return major * 10 + minor
  }

  private static func json(_ verdict: LaunchVerdict) -> JSONValue {
    [
      "verdict": .string(verdict.word),
      "prefill_backend": verdict.prefillBackend.map { .string($0) } ?? .null,
      "decode_backend": verdict.decodeBackend.map { .string($0) } ?? .null,
      "findings": .array(
        verdict.findings.map {
          ["severity": .string($0.severity.word), "text": .string($0.text), "rule": .string($0.rule)]
        }),
      "alternative": verdict.alternative.map { .string($0) } ?? .null,
    ]
  }
}
