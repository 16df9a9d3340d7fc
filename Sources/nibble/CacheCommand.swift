import ArgumentParser
import Engine
import PagedCache

#if canImport(Glibc)
  import Glibc
#elseif canImport(Darwin)
  import Darwin
#endif

struct CacheCommand: AsyncParsableCommand {
  static let configuration = CommandConfiguration(
    commandName: "cache",
    abstract: "Keep a prompt's keys and values in a file, and start from them in another process.",
    subcommands: [Save.self, Load.self])

  struct Save: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Compute a prompt's keys and values and write them to a file.")

    @Argument(help: "The file to write.")
    var file: String

    @Argument(help: "The prompt, given to the model as it is; - reads it from standard input.")
    var prompt: String

    @OptionGroup(title: "Model") var modelOptions: ModelOptions
    @OptionGroup(title: "KV cache") var cacheOptions: CacheOptions
    @OptionGroup(title: "Engine") var engineOptions: EngineOptions

    func run() async throws {
      let text = prompt == "-" ? try Console.readAll() : prompt
      let session = try TextSession(model: modelOptions, cache: cacheOptions, engine: engineOptions)
      let tokens = session.tokenizer.encode(text, addSpecialTokens: true, allowSpecial: true)
      try await session.engine.save(prefix: .tokens(tokens), to: file)
      let cache = session.engine.statistics().kvCache
      var status = stat()
      let size = stat(file, &status) == 0 ? Int(status.st_size) : 0
      Console.error(
        "saved \(tokens.count) tokens (\(cache.recipes), \(cache.bytesPerToken) bytes each) "
          + "to \(file): \(size) bytes")
      await session.engine.shutDown()
    }
  }

  struct Load: AsyncParsableCommand {
    static let configuration = CommandConfiguration(
      abstract: "Bring a saved prompt's keys and values back and go on from there.",
      discussion: "The text that follows the prompt goes to stdout, what is known about the run to stderr.")

    @Argument(help: "A file that 'nibble cache save' wrote.")
    var file: String

    @Argument(help: "Text to add to the prompt.")
    var addition: String = ""

    @OptionGroup(title: "Sampling") var sampling: SamplingOptions
    @OptionGroup(title: "Model") var modelOptions: ModelOptions
    @OptionGroup(title: "KV cache") var cacheOptions: CacheOptions
    @OptionGroup(title: "Engine") var engineOptions: EngineOptions

    func run() async throws {
      let session = try TextSession(model: modelOptions, cache: cacheOptions, engine: engineOptions)
      let saved = try await session.engine.load(from: file)
      let added = session.tokenizer.encode(addition, addSpecialTokens: false, allowSpecial: true)
      let request = Request(
        tokens: saved + added,
        sampling: try sampling.parameters(
          defaults: session.generation, room: session.engine.contextLength - saved.count - added.count))
      for try await event in session.engine.generate(request) {
        switch event {
        case .token(let token): Console.write(token.text)
        case .finished(let completion):
          Console.write(completion.text + "\n")
          session.report(completion).forEach(Console.error)
        }
      }
      await session.engine.shutDown()
    }
  }
}
